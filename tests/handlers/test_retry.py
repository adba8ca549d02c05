"""Rules for retries: what may be one, and what a rule that fails makes of the step it was asked about."""

import asyncio
import copy
import dataclasses
import functools
import pickle
import re
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest

from duramen import Context, Fatal, Retry, Runtime, workflow
from duramen._handlers.retry import check_retry, is_retryable
from duramen.errors import InvalidArgument

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_retry_as_the_engine_wants_it() -> None:
    assert Retry().wire == (3, 2, 500, 60_000, True)
    assert Retry(attempts=1, backoff="constant", base=1, cap=timedelta(hours=1), jitter=False).wire == (
        1, 0, 1000, 3_600_000, False,
    )  # fmt: skip
    assert Retry(backoff="linear").wire[1] == 1
    assert Retry() == Retry()


async def slow(error: Exception) -> bool: ...
async def stream(error: Exception) -> AsyncIterator[bool]:
    yield True


def answers(error: Exception) -> Iterator[bool]:
    yield True


def nothing() -> bool: ...
def two(error: Exception, attempt: int) -> bool: ...
def by_keyword(*, error: Exception) -> bool: ...
def one_and_more(error: Exception, attempt: int = 1, *rest: Any, **more: Any) -> bool: ...


class Rule:
    async def __call__(self, error: Exception) -> bool: ...
    def method(self, error: Exception) -> bool: ...
    async def slow(self, error: Exception) -> bool: ...


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "none": ({"attempts": 0}, "from 1"),
    "negative": ({"attempts": -1}, "from 1"),
    "bool": ({"attempts": True}, "whole number"),
    "float": ({"attempts": 1.5}, "whole number"),
    "text": ({"attempts": "3"}, "whole number"),
    "absurd": ({"attempts": 10**7}, "to 1,000,000"),
    "backoff": ({"backoff": "wild"}, "one of constant, exponential, linear"),
    "misspelt": ({"backoff": "exponentional"}, "one of constant, exponential, linear"),
    "capital": ({"backoff": "Linear"}, "one of constant, exponential, linear"),
    "no text": ({"backoff": ["linear"]}, "one of constant, exponential, linear"),
    "no backoff": ({"backoff": None}, "one of constant, exponential, linear"),
    "base": ({"base": -1}, "must not be negative"),
    "base as text": ({"base": "1s"}, "timedelta, or seconds"),
    "base as bool": ({"base": True}, "timedelta, or seconds"),
    "endless base": ({"base": timedelta.max}, "more than 100 years"),
    "cap": ({"cap": float("nan")}, "finite"),
    "endless cap": ({"cap": float("inf")}, "finite"),
    "absurd cap": ({"cap": 1e12}, "numbers are seconds"),
    "longest cap": ({"cap": timedelta.max}, "numbers are seconds"),
    "cap below base": ({"base": 60, "cap": 10}, "shorter than base"),
    "jitter as fraction": ({"jitter": 0.5}, "True shortens"),
    "no jitter": ({"jitter": None}, "True shortens"),
    "number as class": ({"non_retryable": (3,)}, r"non_retryable=\(ValueError,\)"),
    "text as class": ({"non_retryable": "ValueError"}, r"non_retryable=\(ValueError,\)"),
    "texts as classes": ({"non_retryable": ("ValueError",)}, r"non_retryable=\(ValueError,\)"),
    "instance": ({"non_retryable": ValueError()}, r"non_retryable=\(ValueError,\)"),
    "instances": ({"non_retryable": [KeyError()]}, r"non_retryable=\(KeyError,\)"),
    "no exception": ({"non_retryable": int}, "leave it out"),
    "cancellation": ({"non_retryable": asyncio.CancelledError}, "leave it out"),
    "exit": ({"non_retryable": (ValueError, SystemExit)}, "leave it out"),
    "any": ({"non_retryable": BaseException}, "leave it out"),
    "no classes": ({"non_retryable": None}, r"non_retryable=\(ValueError,\)"),
    "number as rule": ({"retry_if": 3}, "give a function"),
    "async rule": ({"retry_if": slow}, "give a `def`"),
    "async rule in a partial": ({"retry_if": functools.partial(slow)}, "give a `def`"),
    "async rule of an object": ({"retry_if": Rule()}, "give a `def`"),
    "async method as rule": ({"retry_if": Rule().slow}, "give a `def`"),
    "async generator as rule": ({"retry_if": stream}, "give a `def`"),
    "generator as rule": ({"retry_if": answers}, "True or False"),
    "rule of nothing": ({"retry_if": nothing}, "one argument, the exception"),
    "rule of two": ({"retry_if": two}, "one argument, the exception"),
    "rule by keyword": ({"retry_if": by_keyword}, "one argument, the exception"),
    "method of nobody": ({"retry_if": Rule.method}, "one argument, the exception"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_rules_are_refused_with_what_to_write(name: str) -> None:
    options, text = BAD[name]
    with pytest.raises(InvalidArgument, match=text):
        Retry(**options)


@pytest.mark.parametrize(
    "given",
    [ValueError, (ValueError,), [ValueError], {ValueError}, iter([ValueError]), [ValueError, KeyError]],
    ids=range(6),
)
def test_classes_may_be_one_or_any_number(given: Any) -> None:
    rule = Retry(non_retryable=given)
    assert isinstance(rule.non_retryable, tuple)
    assert not is_retryable(ValueError(), rule)
    assert not is_retryable(UnicodeDecodeError("a", b"", 0, 1, ""), rule)
    assert is_retryable(OSError(), rule)
    for again in (copy.copy(rule), pickle.loads(pickle.dumps(rule)), dataclasses.replace(rule)):
        assert again == rule
        assert again.wire == rule.wire


@pytest.mark.parametrize(
    "rule",
    [one_and_more, Rule().method, functools.partial(two, attempt=1), bool, lambda error: True, str.__len__],
    ids=range(6),
)
def test_whatever_takes_one_exception_may_be_asked(rule: Any) -> None:
    assert Retry(retry_if=rule).retry_if is rule


@pytest.mark.parametrize("retry", [3, 0, -2, True, False, None, "3", Retry, 2.5], ids=repr)
def test_a_number_is_no_rule_but_says_which_was_meant(retry: Any) -> None:
    meant = {"3": 3, "0": 1, "-2": 1, "False": 1}.get(repr(retry), 3)
    with pytest.raises(InvalidArgument, match=re.escape(f"retry=Retry(attempts={meant})")):
        check_retry(retry)


# -- rules that fail when they are asked ---------------------------------------------------------------------


class Untrue:
    def __bool__(self) -> bool:
        raise ValueError("neither")


class Odd(Exception):
    def add_note(self, note: str) -> None:
        raise RuntimeError("no notes")


def raising(error: BaseException) -> Any:
    def rule(asked: Exception) -> bool:
        raise error

    return rule


ANSWERS: dict[str, tuple[Any, bool, str | None]] = {
    "true": (lambda error: True, True, None),
    "false": (lambda error: False, False, None),
    "truthy": (lambda error: re.match("a", "a"), True, None),
    "falsy": (lambda error: [], False, None),
    "nothing": (lambda error: None, False, "returned None"),
    "coroutine": (lambda error: slow(error) if error else True, False, "returned <coroutine"),
    "raises": (raising(ValueError("oh")), False, "raised ValueError('oh')"),
    "exits": (raising(SystemExit(3)), False, "raised SystemExit(3)"),
    "is cancelled": (raising(asyncio.CancelledError()), False, "raised CancelledError()"),
    "cannot be judged": (lambda error: Untrue(), False, "raised ValueError('neither')"),
}


@pytest.mark.parametrize("name", list(ANSWERS))
def test_a_rule_that_gives_no_answer_ends_the_step_and_is_noted(name: str) -> None:
    rule, expected, note = ANSWERS[name]
    error = OSError("down")
    assert is_retryable(error, Retry(retry_if=rule)) is expected
    notes = getattr(error, "__notes__", [])
    assert len(notes) == (note is not None)
    if note is not None:
        assert note in notes[0]
        assert notes[0].endswith("so the step was not tried again")
    assert is_retryable(Odd(), Retry(retry_if=rule)) is expected


def test_what_no_rule_is_asked_about() -> None:
    never = Retry(retry_if=lambda error: True)
    assert not is_retryable(Fatal("no"), never)
    assert is_retryable(OSError(), None)
    with pytest.raises(KeyboardInterrupt):
        is_retryable(OSError(), Retry(retry_if=raising(KeyboardInterrupt())))


@pytest.mark.parametrize("name", list(ANSWERS))
async def test_the_run_ends_with_the_steps_own_error_whatever_the_rule_does(name: str) -> None:
    rule, expected, note = ANSWERS[name]
    attempts: list[int] = []

    async def down() -> None:
        attempts.append(1)
        raise OSError("down")

    @workflow(retry=Retry(attempts=2, base=0, retry_if=rule))
    async def handler(ctx: Context) -> None:
        await ctx.step("down", down)

    async with Runtime("memory://", workflows=[handler]) as runtime:
        result = await runtime.run(handler)
    assert result.kind == "failed"
    assert len(attempts) == 1 + expected
    assert result.error is not None
    assert result.error.cause is not None
    assert result.error.cause.short_name == "OSError"
    assert (note or "") in "\n".join(result.error.cause.notes)
