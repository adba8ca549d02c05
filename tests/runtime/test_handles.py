"""Handles of runs that were begun elsewhere, and what is known of their outputs."""

from dataclasses import dataclass

import pytest

from duramen import Context, Runtime, workflow
from duramen.errors import InvalidArgument, InvalidId, UnknownWorkflow

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Parcel:
    label: str


@workflow
async def packs(ctx: Context, label: str) -> Parcel:
    await ctx.wait_for_event("go")
    return Parcel(label)


@workflow
async def counts(ctx: Context) -> int:
    return 3


async def test_a_handle_gives_what_its_workflow_does_also_where_that_is_not_registered(any_url: str) -> None:
    async with Runtime(any_url, workflows=[packs, counts]) as runtime:
        await runtime.start(packs, "a", run_id="p")
        await runtime.signal("p", "go", drive=True)
        assert await runtime.handle("p", packs).result(timeout=20) == Parcel("a")
        # Ended a while ago, in another process for all that is known.
        assert await runtime.handle("p", "packs").result(timeout=20) == Parcel("a")
        assert await runtime.handle("p").result(timeout=20) == Parcel("a")
        if not any_url.startswith("memory"):
            async with Runtime(any_url) as other:
                assert await other.handle("p").result(timeout=20) == {"label": "a"}
                assert await other.handle("p", packs).result(timeout=20) == Parcel("a")
                with pytest.raises(UnknownWorkflow):
                    other.handle("p", "packs")


async def test_a_handle_for_another_workflow_says_so() -> None:
    async with Runtime("memory://", workflows=[packs, counts]) as runtime:
        waits = runtime.handle("c", packs)
        with pytest.raises(InvalidId):
            runtime.handle("", packs)
        with pytest.raises(InvalidArgument):
            runtime.handle("c", 3)  # type: ignore[call-overload]
        begun = await runtime.start(counts, run_id="c")
        with pytest.raises(
            InvalidArgument, match=r"run 'c' is one of workflow 'counts', .* made for 'packs'"
        ):
            await waits.result(timeout=20)
        assert await begun.result(timeout=20) == 3
        with pytest.raises(InvalidArgument, match="one of workflow 'counts'"):
            await runtime.handle("c", packs).result(timeout=20)


def test_the_blocking_twin_takes_a_workflow_too() -> None:
    with Runtime("memory://", workflows=[counts]).sync as runtime:
        runtime.start(counts, run_id="c")
        assert runtime.handle("c", counts).result(timeout=20) == 3
        assert len(runtime.enqueue_many([(counts, None), (counts, None)])) == 2
