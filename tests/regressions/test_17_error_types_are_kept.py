"""Elsewhere what a step raised came back as a bare exception with a text."""

import traceback

import pytest

from duramen import Context, Runtime, StepFailed, register_exception, workflow
from duramen.errors import RunFailed
from tests.regressions.support import note, notes

pytestmark = pytest.mark.anyio


@register_exception
class CardDeclined(Exception):
    def __init__(self, card: str, code: int) -> None:
        super().__init__(card, code)
        self.card = card
        self.code = code


class Unregistered(Exception):
    pass


async def pay(ledger: str, which: str) -> None:
    note(ledger, f"ran {which}")
    if which == "registered":
        raise CardDeclined("4711", 51)
    if which == "chained":
        try:
            raise KeyError("the reason")
        except KeyError as error:
            raise ValueError("the consequence") from error
    if which == "group":
        raise ExceptionGroup("several", [OSError(2, "gone"), CardDeclined("1", 2)])
    raise Unregistered("unheard of")


def facts(error: StepFailed) -> list[object]:
    cause, recorded = error.__cause__, error.error
    found: list[object] = [
        type(cause).__name__,
        recorded.short_name,
        recorded.message,
        "in pay" in recorded.traceback,
    ]
    if isinstance(cause, CardDeclined):
        found += [cause.card, cause.code]
    if recorded.cause is not None:
        found.append(str(recorded.cause))
    found += [str(member) for member in recorded.exceptions]
    return found


@workflow
async def paying(ctx: Context, ledger: str) -> list[list[object]]:
    found: list[list[object]] = []
    for which in ("registered", "chained", "group", "unregistered"):
        try:
            await ctx.step(which, pay, ledger, which)
        except StepFailed as error:
            found.append(facts(error))
    await ctx.wait_for_event("go")
    return found


@workflow
async def failing(ctx: Context, ledger: str) -> None:
    await ctx.step("pay", pay, ledger, "registered")


EXPECTED = [
    ["CardDeclined", "CardDeclined", "('4711', 51)", True, "4711", 51],
    ["ValueError", "ValueError", "the consequence", True, "KeyError: 'the reason'"],
    ["ExceptionGroup", "ExceptionGroup", "several (2 sub-exceptions)", True,
     "FileNotFoundError: [Errno 2] gone", "CardDeclined: ('1', 2)"],
    ["NoneType", "Unregistered", "unheard of", True],
]  # fmt: skip


async def test_a_handler_sees_the_class_the_message_and_the_cause_live_as_on_replay(
    url: str, ledger: str
) -> None:
    async with Runtime(url, workflows=[paying], warm=10) as runtime:
        await runtime.enqueue(paying, ledger, run_id="live")
        await runtime.sweep()
        await runtime.signal("live", "go")
        await runtime.sweep()
        assert await runtime.result("live", timeout=10) == EXPECTED
        await runtime.enqueue(paying, ledger, run_id="replayed")
        await runtime.sweep()
    async with Runtime(url, workflows=[paying]) as runtime:
        await runtime.signal("replayed", "go")
        await runtime.sweep()
        assert await runtime.result("replayed", timeout=10) == EXPECTED
    assert len(notes(ledger)) == 8


async def test_the_error_of_a_run_is_the_exception_that_its_step_raised(url: str, ledger: str) -> None:
    async with Runtime(url, workflows=[failing]) as runtime:
        run = await runtime.start(failing, ledger, run_id="r")
        with pytest.raises(RunFailed):
            await run.result(timeout=10)
    async with Runtime(url) as runtime:  # and in a process that never saw it fail
        with pytest.raises(RunFailed) as caught:
            await runtime.result("r")
    chain: list[BaseException] = []
    error: BaseException | None = caught.value
    while error is not None:
        chain.append(error)
        error = error.__cause__
    declined = chain[-1]
    assert isinstance(declined, CardDeclined), traceback.format_exception(caught.value)
    assert (declined.card, declined.code) == ("4711", 51)
    view_error = caught.value.error
    assert "4711" in str(view_error)
