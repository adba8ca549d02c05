"""Completion tokens: whoever has the text ends the wait, once, and nobody else."""

import asyncio
import base64
import json

import pytest

from duramen import Context, RunFailed, Runtime, workflow
from duramen.errors import (
    InvalidToken,
    RunFinished,
    SignalRefused,
    TokenConflict,
    TokenExpired,
    TokenFailed,
    TokenRejected,
)
from tests.updates.workflows import ALL, TEXTS, Deposit, asking, until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _no_texts() -> None:
    TEXTS.clear()


async def text_of(run_id: str) -> str:
    async def is_there() -> bool:
        return run_id in TEXTS

    await until(is_there)
    return TEXTS[run_id]


async def test_a_token_is_completed_once_from_anywhere(any_url: str) -> None:
    async with Runtime(any_url, workflows=ALL) as runtime:
        run = await runtime.start(asking, None, run_id="r")
        text = await text_of("r")
        assert await runtime.complete(text, Deposit(5, "x")) in {"delivered", "buffered"}
        assert await run.result(timeout=30) == "5 x"
        assert await runtime.complete(text, Deposit(5, "x")) == "duplicate"
        with pytest.raises(TokenConflict):
            await runtime.complete(text, Deposit(6, "x"))
        with pytest.raises(TokenConflict):
            await runtime.fail(text, "no")


async def test_a_token_that_is_failed_raises_in_the_handler(any_url: str) -> None:
    async with Runtime(any_url, workflows=ALL) as runtime:
        run = await runtime.start(asking, None, run_id="r")
        text = await text_of("r")
        await runtime.fail(text, "the job was lost")
        assert await runtime.fail(text, "the job was lost") == "duplicate"
        with pytest.raises(RunFailed, match="the job was lost") as failed:
            await run.result(timeout=30)
        assert failed.value.error.short_name == TokenFailed.__name__


async def test_a_value_that_does_not_fit_is_refused_and_leaves_room_for_one_that_does(url: str) -> None:
    async with Runtime(url, workflows=ALL) as drives, Runtime(url) as stranger:
        run = await drives.start(asking, None, run_id="r")
        text = await text_of("r")
        with pytest.raises(TokenRejected, match="amount"):
            await drives.complete(text, {"amount": "much"})

        async def is_refused() -> bool:
            return bool((await drives.get("r")).refused)

        # Who has no code of the workflow is told by the run, if asked again.
        await stranger.complete(text, {"amount": "much"})
        await until(is_refused)
        with pytest.raises(TokenRejected):
            await stranger.complete(text, {"amount": "much"})
        await stranger.complete(text, {"amount": 3})
        assert await run.result(timeout=30) == "3 "


async def test_forged_texts_are_refused_and_not_repeated(memory_url: str) -> None:
    async with Runtime(memory_url, workflows=ALL) as runtime:
        for run_id in ("r", "s"):
            await runtime.start(asking, None, run_id=run_id)
        text, other = await text_of("r"), await text_of("s")
        prefix, body, signature = text.split(".")
        claims = base64.urlsafe_b64encode(json.dumps(["s", "token-1", None]).encode()).decode().rstrip("=")
        nobody = base64.urlsafe_b64encode(json.dumps(["nobody", "x", None]).encode()).decode().rstrip("=")
        forged = [
            "", "x", prefix, f"{prefix}.{body}", f"{prefix}.{body}.", f"{prefix}.{body}.!!",
            f"dt2.{body}.{signature}",
            f"{prefix}.{body}.{'A' * len(signature)}", f"{prefix}.{body}.{other.split('.')[2]}",
            f"{prefix}.{claims}.{signature}", f"{prefix}.{nobody}.{signature}", text[:-2],
            "ü" * 40, "A" * 5_000,
        ]  # fmt: skip
        for each in forged:
            with pytest.raises(InvalidToken) as refused:
                await runtime.complete(each, Deposit(1))
            assert not each or each not in str(refused.value) or len(each) < 4
        await runtime.delete("r", force=True)
        with pytest.raises(InvalidToken):
            await runtime.complete(text, Deposit(1))
        # Another run of that id is another run.
        await runtime.start(asking, None, run_id="r")
        with pytest.raises(InvalidToken):
            await runtime.complete(text, Deposit(1))
        assert signature not in repr(await runtime.get("r"))


async def test_a_token_ends_with_its_time_and_with_its_run(sqlite_url: str) -> None:
    async with Runtime(sqlite_url, workflows=ALL) as runtime:
        run = await runtime.start(asking, 0.05, run_id="r")
        text = await text_of("r")
        with pytest.raises(RunFailed, match="TimeoutError"):
            await run.result(timeout=30)
        with pytest.raises(TokenExpired):
            await runtime.complete(text, Deposit(1))
        await runtime.start(asking, None, run_id="s")
        text = await text_of("s")
        await runtime.terminate("s")
        with pytest.raises(RunFinished):
            await runtime.complete(text, Deposit(1))


async def test_the_text_is_the_same_after_a_restart_and_events_cannot_stand_for_it(sqlite_url: str) -> None:
    texts: list[str] = []

    @workflow
    async def twice(ctx: Context) -> int:
        token = ctx.token(int, id="job")
        assert "dt1" not in repr(token)
        texts.append(token.text)
        return await token.result() + await token.result()

    for _ in range(2):
        async with Runtime(sqlite_url, workflows=[twice]) as runtime:
            await runtime.enqueue(twice, run_id="r")
            await runtime.sweep()
            with pytest.raises(SignalRefused):
                await runtime.signal("r", "__token:job", 1)
            with pytest.raises(SignalRefused):
                await runtime.signal("r", "x", 1, signal_id="__token:job")
            if len(texts) == 1:
                assert (await runtime.get("r")).status == "waiting"
                await runtime.cancel("r")
    assert len(texts) >= 2
    assert len(set(texts)) == 1


def test_the_blocking_calls(sqlite_url: str) -> None:
    with Runtime(sqlite_url, workflows=ALL).sync as runtime:
        run = runtime.start(asking, None, run_id="r")
        text = asyncio.run(text_of("r"))
        runtime.complete(text, Deposit(2))
        assert run.result(timeout=30) == "2 "
