"""Elsewhere failed validation, another version, or a missing input left a run "running" for ever."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from duramen import Context, Runtime, workflow
from duramen.errors import InvalidArgument, RunFailed, SerializationError, UnknownWorkflow
from tests.regressions.support import in_future

pytestmark = pytest.mark.anyio


class Order(BaseModel):
    number: int


@workflow(name="order")
async def strict(ctx: Context, order: Order) -> int:
    return order.number


@workflow(name="order")
async def loose(ctx: Context, order: Any) -> int:
    return 0


@workflow(name="order")
async def without_input(ctx: Context) -> int:
    return 0


@workflow(name="order", version="2")
async def second(ctx: Context, order: Order) -> int:
    return -order.number


@workflow(name="order", version="2", previous=[strict])
async def both(ctx: Context, order: Order) -> int:
    return -order.number


async def test_an_input_of_the_wrong_shape_is_refused_before_anything_is_written(url: str) -> None:
    async with Runtime(url, workflows=[strict]) as runtime:
        bad: Any = {"number": "many"}
        for call in (runtime.start, runtime.enqueue, runtime.run):
            with pytest.raises(SerializationError, match="number"):
                await call(strict, bad, run_id="r")
        with pytest.raises(SerializationError):
            await runtime.start(strict, None, run_id="r")  # pyright: ignore[reportArgumentType,reportCallIssue]
        assert await runtime.count() == 0
    async with Runtime(url, workflows=[without_input]) as runtime:
        with pytest.raises(InvalidArgument, match="takes no input"):
            await runtime.start(without_input, 1, run_id="r")  # pyright: ignore[reportArgumentType,reportCallIssue]
        assert await runtime.count() == 0


@pytest.mark.parametrize("value", [{"number": "many"}, None, [1]])
async def test_a_stored_input_of_the_wrong_shape_fails_its_run_with_the_reason(
    url: str, value: object
) -> None:
    async with Runtime(url, workflows=[loose]) as runtime:
        await runtime.enqueue(loose, value, run_id="r")
    async with Runtime(url, workflows=[strict]) as runtime:
        assert [run.kind for run in (await runtime.sweep()).queued] == ["failed"]
        view = await runtime.get("r")
        assert (view.status, view.owner, view.ready_at) == ("failed", None, None)
        assert view.error is not None
        assert view.error.short_name == "DeserializationError"
        with pytest.raises(RunFailed):
            await runtime.result("r", timeout=10)


async def test_a_run_of_a_version_that_is_not_here_stays_untouched_until_it_is(url: str) -> None:
    async with Runtime(url, workflows=[strict]) as runtime:
        await runtime.enqueue(strict, Order(number=3), run_id="r")
        before = await runtime.get("r")
    async with Runtime(url, workflows=[second]) as runtime:
        assert (await runtime.sweep()).driven == ()
        assert (await runtime.sweep(now=in_future(timedelta(days=9)))).driven == ()
        with pytest.raises(UnknownWorkflow, match="'order' version '1'"):
            await runtime.start(strict, Order(number=1))
        untouched = await runtime.get("r")
        assert (untouched.status, untouched.epoch, untouched.updated_at, untouched.journal_len) == (
            before.status, before.epoch, before.updated_at, before.journal_len,
        )  # fmt: skip
    async with Runtime(url, workflows=[both]) as runtime:
        assert [run.kind for run in (await runtime.sweep()).queued] == ["completed"]
        assert await runtime.result("r") == 3  # by the code under which it began
