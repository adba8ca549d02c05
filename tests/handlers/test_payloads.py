"""What is neither a user's value nor the engine's: failures, decisions, reasons, also through codecs."""

import asyncio
import zlib
from typing import Any

import pytest

from duramen import Context, step, workflow
from duramen._bridge import native_error
from duramen._values.payloads import (
    dump_failure,
    failed_operation,
    load_decision,
    load_lenient,
    load_reason,
    load_recorded,
    step_failure,
)
from duramen._values.serializer import CodecSerializer, JsonSerializer
from duramen.errors import (
    DeserializationError,
    ForkedProcess,
    StepFailed,
    StepTimeout,
    StoreClosed,
    StoreError,
)
from tests.driving.harness import Harness


class Zlib:
    def encode(self, data: bytes) -> bytes:
        return zlib.compress(data)

    def decode(self, data: bytes) -> bytes:
        try:
            return zlib.decompress(data)
        except zlib.error as error:
            raise DeserializationError("$", str(error)) from None


PACKED = CodecSerializer(JsonSerializer(), Zlib())


@pytest.fixture(params=["json", "packed"])
def serializer(request: Any) -> Any:
    return JsonSerializer() if request.param == "json" else PACKED


def test_a_failure_comes_back_with_its_attempts_and_its_cause(serializer: Any) -> None:
    data = dump_failure(serializer, KeyError("card"), attempts=3)
    failure = step_failure(serializer, "pay", data)
    assert type(failure) is StepFailed
    assert (failure.operation_id, failure.attempts, repr(failure.__cause__)) == ("pay", 3, "KeyError('card')")
    late = step_failure(
        serializer, "pay", dump_failure(serializer, TimeoutError(), attempts=1, timed_out=True)
    )
    assert type(late) is StepTimeout
    assert load_recorded(serializer, data).short_name == "KeyError"


def test_the_operation_that_failed_is_found_wherever_its_failure_hides() -> None:
    recorded = load_recorded(JsonSerializer(), dump_failure(JsonSerializer(), KeyError()))
    failure = StepFailed("pay", 1, recorded)
    assert failed_operation(failure) == "pay"
    assert failed_operation(ExceptionGroup("all", [ValueError(), failure])) == "pay"
    outer = ValueError()
    outer.__context__ = failure
    assert failed_operation(outer) == "pay"
    assert failed_operation(ValueError()) is None
    circle = ValueError()
    other = KeyError()
    circle.__cause__, other.__cause__ = other, circle
    assert failed_operation(circle) is None


def test_clients_without_the_codecs_are_understood(serializer: Any) -> None:
    assert load_lenient(serializer, b'{"a":1}') == {"a": 1}
    assert load_reason(serializer, b'"why"') == "why"
    assert load_reason(serializer, b"\xff") == ""
    assert load_reason(serializer, b"3") == ""
    with pytest.raises(DeserializationError):
        load_lenient(serializer, b"\xff")


@pytest.mark.parametrize(
    "payload",
    [b"3", b"{}", b'{"approved":1,"at":1}', b'{"approved":true}', b'{"approved":true,"at":1,"by":3}'],
    ids=["no object", "empty", "no bool", "no time", "by"],
)
def test_bad_decisions_are_refused(payload: bytes) -> None:
    with pytest.raises(DeserializationError):
        load_decision(JsonSerializer(), payload)


def test_errors_of_the_engine() -> None:
    assert isinstance(native_error(("closed", "x")), StoreClosed)
    assert isinstance(native_error(("forked", "x")), ForkedProcess)
    assert type(native_error(("new kind", "x"))) is StoreError


def test_everything_goes_through_the_codecs() -> None:
    @step
    async def fails(n: int) -> int:
        raise ValueError(n)

    @workflow
    async def handler(ctx: Context, n: int) -> list[Any]:
        try:
            await fails(n)
        except StepFailed as error:
            first = repr(error.__cause__)
        decision = await ctx.approve("?")
        try:
            await ctx.wait_for_event("never")
        except asyncio.CancelledError as error:
            return [first, decision.by, *error.args]
        return []

    async def main() -> Any:
        async with Harness(warm=0, serializer=PACKED) as h:
            await h.start(handler, 7)
            h.work()
            await h.until("waiting")
            await h.decide("approval-1", {"approved": True, "feedback": None, "by": "ann", "at": 1})
            await asyncio.sleep(0.02)
            await h.cancel("enough")
            ending = await h.end()
            return ending, await h.call("load", "r", 0, 100)

    ending, journal = asyncio.run(main())
    assert ending.output == ["ValueError(7)", "ann", "enough"], ending
    assert all(zlib.decompress(entry.payload) for entry in journal if entry.payload)
