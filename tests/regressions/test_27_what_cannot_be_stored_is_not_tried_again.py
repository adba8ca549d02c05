"""Elsewhere arguments and results that could not be serialised were tried for ever."""

import math
import threading
from typing import Any

import pytest

from duramen import Context, JsonSerializer, Retry, Runtime, StepFailed, workflow
from duramen.errors import DuramenError, PayloadTooLarge, SerializationError
from tests.regressions.support import note, notes

pytestmark = pytest.mark.anyio

TRY_HARD = Retry(attempts=1000, base=0, jitter=False)

VALUES: dict[str, Any] = {
    "object": {"a": [1, {"lock": threading.Lock()}]},
    "nan": {"rows": [1.0, math.nan]},
    "infinity": math.inf,
    "function": print,
    "surrogate": {"text": "\ud800"},
    "circle": [],
}
VALUES["circle"].append(VALUES["circle"])


@workflow
async def returning(ctx: Context, ledger: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for name, value in VALUES.items():

        async def give(name: str = name, value: Any = value) -> Any:
            note(ledger, f"ran {name} once")
            return value

        try:
            await ctx.step(name, give, retry=TRY_HARD)
        except StepFailed as error:
            found[name] = [error.error.short_name, error.attempts, error.error.message]
    return found


async def test_a_result_that_cannot_be_stored_fails_its_step_at_once_with_the_path(
    url: str, ledger: str
) -> None:
    async with Runtime(url, workflows=[returning]) as runtime:
        found = await (await runtime.start(returning, ledger)).result(timeout=30)
    assert {name: facts[:2] for name, facts in found.items()} == {
        name: ["SerializationError", 1] for name in VALUES
    }
    assert "lock" in found["object"][2]
    assert "rows" in found["nan"][2]
    assert "text" in found["surrogate"][2]
    assert len(notes(ledger)) == len(VALUES)


@workflow
async def taking(ctx: Context, value: Any) -> str:
    return repr(value)


@pytest.mark.parametrize("name", VALUES)
async def test_an_input_that_cannot_be_stored_is_refused_before_anything_is_written(
    url: str, name: str
) -> None:
    async with Runtime(url, workflows=[taking]) as runtime:
        for call in (runtime.start, runtime.enqueue, runtime.run):
            with pytest.raises(SerializationError):
                await call(taking, VALUES[name], run_id="r")
        with pytest.raises(SerializationError):
            await runtime.enqueue(taking, 1, memo=VALUES[name])
        with pytest.raises(SerializationError):
            await runtime.enqueue_many([(taking, 1), (taking, VALUES[name])])
        assert await runtime.count() == 0
        await runtime.enqueue(taking, 1, run_id="r")
        with pytest.raises(SerializationError):
            await runtime.signal("r", "event", VALUES[name])
        assert (await runtime.get("r")).unread == 0


async def test_a_result_over_the_limit_fails_its_step_at_once() -> None:
    attempts: list[int] = []

    async def large() -> str:
        attempts.append(1)
        return "x" * 2000

    @workflow
    async def growing(ctx: Context) -> str:
        try:
            return await ctx.step("large", large, retry=TRY_HARD)
        except StepFailed as error:
            return error.error.short_name

    async with Runtime(
        "memory://", workflows=[growing], serializer=JsonSerializer(max_bytes=1000)
    ) as runtime:
        assert await (await runtime.start(growing)).result(timeout=30) == "PayloadTooLarge"
    assert attempts == [1]
    assert issubclass(PayloadTooLarge, DuramenError)
