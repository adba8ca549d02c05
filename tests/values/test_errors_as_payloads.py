"""Exceptions go into the store as facts, and come back as themselves where that is safe."""

import asyncio
import json
from typing import Any

import pytest

from duramen._values import exceptions
from duramen._values.serializer import dump_error, load_error, rebuild_error, register_exception
from duramen.errors import DeserializationError, Fatal, InvalidArgument


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exceptions, "_registry", dict(exceptions._registry))


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001
        return caught


def trip(error: BaseException) -> BaseException | None:
    return rebuild_error(load_error(dump_error(error)))


class Custom(Exception):
    def __init__(self, order: int, *, why: str) -> None:
        super().__init__(f"order {order} failed")
        self.order = order
        self.why = why
        self.handle = object()


class Worded(Exception):
    def __init__(self, order: str) -> None:
        super().__init__(f"order {order} failed")


class Strange(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_type_text_and_traceback_are_kept() -> None:
    recorded = load_error(dump_error(raised(ValueError("no such card"))))
    assert recorded.type_name == "builtins.ValueError"
    assert recorded.message == "no such card"
    assert recorded.args == ("no such card",)
    assert "raise error" in recorded.traceback
    assert __file__ in recorded.traceback
    assert load_error(dump_error(Custom(1, why="x"))).type_name == f"{__name__}.Custom"


def test_causes_contexts_notes_and_groups_are_kept() -> None:
    try:
        try:
            raise KeyError("a")
        except KeyError as error:
            raise ValueError("b") from error
    except ValueError as error:
        error.add_note("look here")
        with_cause = error
    try:
        try:
            raise KeyError("a")
        except KeyError:
            raise ValueError("b")  # noqa: B904
    except ValueError as error:
        with_context = error
    try:
        try:
            raise KeyError("a")
        except KeyError:
            raise ValueError("b") from None
    except ValueError as error:
        suppressed = error
    recorded = load_error(dump_error(with_cause))
    assert recorded.notes == ("look here",)
    assert recorded.cause is not None
    assert recorded.cause.type_name == "builtins.KeyError"
    assert load_error(dump_error(with_context)).cause == load_error(dump_error(with_context.__context__))
    assert load_error(dump_error(suppressed)).cause is None
    group = ExceptionGroup("many", [ValueError("x"), ExceptionGroup("inner", [KeyError("y")])])
    recorded = load_error(dump_error(group))
    assert [each.message for each in recorded.exceptions] == ["x", "inner (1 sub-exception)"]
    again = rebuild_error(recorded)
    assert isinstance(again, ExceptionGroup)
    assert repr(again) == repr(group)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a"),
        ValueError(),
        KeyError("k"),
        KeyError(3),
        RuntimeError("a", 1, None),
        TimeoutError(),
        FileNotFoundError(2, "No such file"),
        ZeroDivisionError("division by zero"),
        StopIteration(5),
        AssertionError("é\x00🪵"),
        Fatal("give up"),
    ],
    ids=repr,
)
def test_builtin_errors_are_made_again(error: Exception) -> None:
    again = trip(raised(error))
    assert type(again) is type(error)
    assert again.args == error.args
    assert str(again) == str(error)


def test_notes_and_causes_are_made_again() -> None:
    error = ValueError("a")
    error.add_note("n")
    error.__cause__ = KeyError("b")
    again = trip(error)
    assert again is not None
    assert again.__notes__ == ["n"]
    assert repr(again.__cause__) == "KeyError('b')"
    assert again.__recorded__.traceback == ""


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), SystemExit(1), asyncio.CancelledError(), Custom(1, why="x"), GeneratorExit()],
    ids=repr,
)
def test_others_stay_recorded(error: BaseException) -> None:
    assert trip(error) is None


def test_registered_classes_come_back_as_themselves_with_their_plain_attributes() -> None:
    register_exception(Custom)
    again = trip(Custom(7, why="no bolts"))
    assert isinstance(again, Custom)
    assert (again.order, again.why, str(again)) == (7, "no bolts", "order 7 failed")
    assert not hasattr(again, "handle")
    assert str(trip(raised(again))) == "order 7 failed"


def test_a_constructor_that_words_its_message_does_not_word_it_twice() -> None:
    register_exception(Worded)
    assert str(trip(Worded("7"))) == "order 7 failed"


def test_nothing_is_imported_or_run_by_name() -> None:
    for name in (
        "os.system",
        "builtins.print",
        "builtins.int",
        "builtins.eval",
        "subprocess.CalledProcessError",
        "x",
        "",
    ):
        assert (
            rebuild_error(load_error(json.dumps({"type": name, "message": "m", "args": ["1"]}).encode()))
            is None
        )


def test_only_exceptions_can_be_registered() -> None:
    for thing in (int, ValueError("x"), "ValueError"):
        with pytest.raises(InvalidArgument):
            register_exception(thing)


@pytest.mark.parametrize(
    "error",
    [
        Strange(),
        ValueError("\ud800"),
        ValueError(object()),
        ValueError(float("nan")),
        ValueError(b"\xff"),
        ValueError("x" * 10_000_000),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"),
        ValueError([[]] * 100_000),
    ],
    ids=["str fails", "surrogate", "object", "nan", "bytes", "long", "five arguments", "large"],
)
def test_any_exception_can_be_recorded_and_none_is_huge(error: Exception) -> None:
    error.other = error
    data = dump_error(raised(error))
    assert len(data) < 100_000
    recorded = load_error(data)
    assert recorded.short_name == type(error).__name__
    rebuild_error(recorded)


def test_circles_and_long_chains_end() -> None:
    first, second = ValueError("1"), ValueError("2")
    first.__cause__, second.__cause__ = second, first
    assert load_error(dump_error(first)).cause.cause is None
    chain: BaseException = ValueError("0")
    for number in range(5000):
        after = ValueError(str(number))
        after.__cause__ = chain
        chain = after
    assert len(dump_error(chain)) < 10_000


def recurse(levels: int) -> Any:
    return recurse(levels - 1) if levels else 1 / 0


def test_long_tracebacks_keep_their_newest_frames() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        recurse(400)
    recorded = load_error(dump_error(caught.value, max_traceback=2000))
    assert not load_error(dump_error(caught.value, max_traceback=0)).traceback
    assert 0 < len(recorded.traceback) <= 2000
    assert "1 / 0" in recorded.traceback


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"1", b"{}", b'{"type":"x"}', b'{"type":"x","message":"m","args":5}']
)
def test_other_payloads_are_refused(data: bytes) -> None:
    with pytest.raises(DeserializationError, match="not a recorded error"):
        load_error(data)


def test_fields_of_later_versions_are_ignored() -> None:
    assert load_error(b'{"type":"a.B","message":"m","later":1}').message == "m"
