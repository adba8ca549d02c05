"""Exceptions go into the store as facts, and come back as themselves where that is safe."""

import asyncio
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from duramen._values import exceptions
from duramen._values.payloads import dump_failure, step_failure
from duramen._values.serializer import (
    JsonSerializer,
    dump_error,
    load_error,
    rebuild_error,
    register_exception,
)
from duramen.errors import DeserializationError, Fatal, InvalidArgument, RecordedError, StepFailed


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exceptions, "_registry", dict(exceptions._registry))
    monkeypatch.setattr(exceptions, "_names", dict(exceptions._names))


serial = JsonSerializer()


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
        PermissionError(13, "Not allowed", "a.txt"),
        FileExistsError(17, "It is there", "a.txt", None, "b.txt"),
        ImportError("no such module", name="shop", path="shop.py"),
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


def test_attributes_of_builtin_errors_are_made_again() -> None:
    error = trip(FileNotFoundError(2, "No such file", "a.txt"))
    assert isinstance(error, FileNotFoundError)
    assert (error.errno, error.filename, str(error)) == (2, "a.txt", "[Errno 2] No such file: 'a.txt'")
    error = trip(ImportError("m", name="shop"))
    assert isinstance(error, ImportError)
    assert (error.name, error.path) == ("shop", None)
    with pytest.raises(SyntaxError) as caught:
        compile("a b", "shop.py", "exec")
    error = trip(caught.value)
    assert isinstance(error, SyntaxError)
    assert (error.filename, error.lineno, str(error)) == ("shop.py", 1, str(caught.value))
    # But not the object that had no such attribute: it may hold anything.
    with pytest.raises(AttributeError) as missing:
        getattr({"password": "x"}, "passwort")  # noqa: B009
    data = dump_error(missing.value)
    assert b"password" not in data.replace(b"passwort", b"").partition(b'"attributes"')[2]
    assert trip(missing.value).name == "passwort"


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


class Slotted(Exception):
    __slots__ = ("code", "unset")

    def __init__(self, code: int) -> None:
        super().__init__("declined", code)
        self.code = code


class Priced(Exception):
    def __init__(self, price: Decimal) -> None:
        super().__init__(f"the price is {price}")
        self.price = price


class Held(Exception):
    def __init__(self, price: Decimal) -> None:
        super().__init__(price)
        self.price = price


class Stamped(Exception):
    made = 0

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.at = datetime.now(UTC)
        Stamped.made += 1
        self.number = Stamped.made


def test_attributes_in_slots_come_back() -> None:
    register_exception(Slotted)
    again = trip(Slotted(5))
    assert isinstance(again, Slotted)
    assert (again.code, again.args, hasattr(again, "unset")) == (5, ("declined", 5), False)


@pytest.mark.parametrize("cls", [Priced, Held])
def test_what_is_no_plain_json_is_missing_and_never_something_else(cls: type[Exception]) -> None:
    register_exception(cls)
    error = cls(Decimal("1.50"))
    again = trip(error)
    assert isinstance(again, cls)
    assert str(again) == str(error)
    assert not hasattr(again, "price")  # least of all the text as the price


def test_a_class_that_cannot_be_made_without_its_constructor_stays_recorded() -> None:
    register_exception(ValidationError)
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(int).validate_python("x")
    assert trip(caught.value) is None
    assert step_failure(serial, "a", dump_error(caught.value)).error.short_name == "ValidationError"


def test_no_constructor_of_a_users_class_runs_to_make_it_again() -> None:
    register_exception(Stamped)
    data = dump_error(Stamped("x"))
    made = Stamped.made
    for _ in range(2):
        again = rebuild_error(load_error(data))
        assert isinstance(again, Stamped)
        assert (again.args, again.number) == (("x",), made)
        assert not hasattr(again, "at")  # it would be another one on each replay
    assert Stamped.made == made


def test_a_builtin_base_reads_its_arguments_though_the_constructor_is_left_out() -> None:
    @register_exception
    class Disk(OSError):
        def __init__(self, *, where: str) -> None:
            super().__init__(5, "broken", where)

    again = trip(Disk(where="sda"))
    assert isinstance(again, Disk)
    assert (again.errno, again.filename, str(again)) == (5, "sda", "[Errno 5] broken: 'sda'")


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


def test_a_registration_has_a_name_and_remembers_old_ones() -> None:
    assert register_exception(Custom, name="shop.Custom", aliases=["shop.old.Custom"]) is Custom
    data = dump_error(Custom(7, why="x"))
    assert load_error(data).registered == "shop.Custom"
    for name in ("shop.Custom", "shop.old.Custom", f"{__name__}.Custom"):
        record = json.loads(data) | {"registered": name}
        assert isinstance(step_failure(serial, "a", json.dumps(record).encode()).__cause__, Custom)
    # As versions wrote it that did not say whether it was registered.
    record = {key: value for key, value in json.loads(data).items() if key != "registered"}
    assert isinstance(step_failure(serial, "a", json.dumps(record).encode()).__cause__, Custom)


def test_a_class_is_made_again_for_a_handler_if_and_only_if_it_was_registered_then() -> None:
    before = dump_error(Custom(7, why="x"))
    assert load_error(before).registered == ""
    register_exception(Custom)
    assert step_failure(serial, "a", before).__cause__ is None
    registered = Custom(7, why="x")
    outer = ValueError("outer")
    outer.__cause__ = registered
    after = [dump_error(error) for error in (registered, outer, ExceptionGroup("g", [registered]))]
    for data in after:
        assert step_failure(serial, "a", data).__cause__ is not None
    exceptions._registry.clear()
    for data in after:
        with pytest.raises(DeserializationError, match=r"Custom' was registered when .*aliases="):
            step_failure(serial, "a", data)
        # Whoever only looks at a result goes without.
        rebuild_error(load_error(data))
    assert rebuild_error(load_error(after[0])) is None


def test_the_failure_of_a_step_that_ends_a_run_keeps_what_it_came_from() -> None:
    register_exception(Custom)
    failure = step_failure(serial, "a", dump_failure(serial, Custom(7, why="x"), attempts=2))
    recorded = load_error(dump_failure(serial, failure))
    assert recorded.cause is not None
    assert recorded.cause.registered == f"{__name__}.Custom"
    again = rebuild_error(recorded)
    assert again is not None
    assert isinstance(again.__cause__, Custom)


def test_a_class_with_the_layout_of_a_builtin_one_comes_back_without_its_constructor() -> None:
    @register_exception
    class Disk(OSError):
        def __init__(self, *, where: str) -> None:
            super().__init__(5, "broken")
            self.where = where

    again = trip(Disk(where="sda"))
    assert isinstance(again, Disk)
    assert again.where == "sda"


def test_two_classes_do_not_share_a_name() -> None:
    register_exception(Custom, name="shop.Custom")
    register_exception(Custom, name="shop.Custom")
    for register in (
        lambda: register_exception(Worded, name="shop.Custom"),
        lambda: register_exception(name="mine", aliases=["shop.Custom"])(Worded),
        lambda: register_exception(Worded, name=""),
        lambda: register_exception(Worded, aliases="old"),
        lambda: register_exception(Worded, name="\ud800"),
    ):
        with pytest.raises(InvalidArgument):
            register()
    assert exceptions._registry["shop.Custom"] is Custom
    again = type("Custom", (Exception,), {"__module__": __name__})
    register_exception(again, name="shop.Custom")  # a module that was loaded again
    assert exceptions._registry["shop.Custom"] is again


def test_only_exceptions_can_be_registered() -> None:
    for thing in (int, ValueError("x"), "ValueError"):
        with pytest.raises(InvalidArgument):
            register_exception(thing)


class Odd(Exception):
    """Everything that is asked of an exception, it answers otherwise."""

    __slots__ = ()

    args = property(lambda self: 1 / 0)
    __cause__ = property(lambda self: 1 / 0)
    __context__ = property(lambda self: 5)
    __traceback__ = property(lambda self: "here")
    __suppress_context__ = property(lambda self: 1 / 0)
    __dict__ = property(lambda self: None)
    __notes__ = property(lambda self: 1 / 0)
    __class__ = property(lambda self: int)
    __reduce__ = None

    def __str__(self) -> str:
        raise SystemExit(3)

    def __bool__(self) -> bool:
        raise RuntimeError("neither")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")

    __hash__ = None


class Text(str):
    __slots__ = ()

    def encode(self, *_: Any) -> bytes:
        raise RuntimeError("not encodable")

    def __getitem__(self, _: Any) -> str:
        raise RuntimeError("not sliceable")


class Textual(Exception):
    def __str__(self) -> str:
        return Text("words")


class Nameless(type):
    @property
    def __module__(cls) -> str:
        raise RuntimeError("no module")


class Placeless(Exception, metaclass=Nameless):
    pass


class OddGroup(ExceptionGroup[Exception]):
    exceptions = property(lambda self: 1 / 0)
    message = property(lambda self: 1 / 0)


def noted(error: BaseException, notes: Any) -> BaseException:
    error.__notes__ = notes
    return error


def with_facts(error: BaseException, facts: dict[Any, Any]) -> BaseException:
    error.__dict__.update(facts)
    return error


def nested(levels: int, width: int) -> BaseException:
    if levels == 0:
        return ValueError("x" * 40_000)
    return ExceptionGroup("g" * 40_000, [nested(levels - 1, width) for _ in range(width)])


itself: list[Any] = []
itself += [itself, itself, itself]

ODD: dict[str, Callable[[], BaseException]] = {
    "str fails": Strange,
    "surrogate": lambda: ValueError("\ud800"),
    "object": lambda: ValueError(object()),
    "nan": lambda: ValueError(math.nan),
    "bytes": lambda: ValueError(b"\xff"),
    "long": lambda: ValueError("x" * 10_000_000),
    "five arguments": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"),
    "large": lambda: ValueError([[]] * 100_000),
    "huge int": lambda: ValueError(10**5736),
    "holds itself": lambda: ValueError(itself),
    "everything": Odd,
    "everything, below": lambda: with_facts(ExceptionGroup("g", [Odd(), ValueError("x")]), {"o": Odd()}),
    "text of another kind": Textual,
    "no module": Placeless,
    "group": lambda: OddGroup("g", [ValueError("x")]),
    "wide and deep": lambda: nested(3, 12),
    "keys that are none": lambda: with_facts(ValueError("x"), {1: 2, None: 3, ("a",): 4}),
    "surrogate as key": lambda: with_facts(ValueError("x"), {"\ud800": 1, Text("a"): 2}),
    "many attributes": lambda: with_facts(ValueError("x"), {f"a{n}": "x" * 10_000 for n in range(1000)}),
    "notes that are none": lambda: noted(ValueError("x"), 5),
    "notes of all kinds": lambda: noted(ValueError("x"), [Strange(), "\ud800", Text("a"), 1] * 100),
    "long notes": lambda: noted(ValueError("x"), ["x" * 1_000_000] * 100),
}


@pytest.mark.parametrize("make", ODD.values(), ids=ODD.keys())
def test_any_exception_can_be_recorded_and_none_is_huge(make: Callable[[], BaseException]) -> None:
    error = make()
    cause = make()
    if type(error) is not Odd:
        error.__cause__ = cause
        error.__dict__["other"] = error
    for data in (dump_error(raised(error)), dump_failure(JsonSerializer(), raised(error), attempts=1)):
        assert len(data) < 300_000
        recorded = load_error(data)
        assert recorded.short_name == type.__getattribute__(type(error), "__name__") or "unknown"
        rebuild_error(recorded)
        assert isinstance(step_failure(JsonSerializer(), "a", data), StepFailed)


def test_a_cause_that_is_false_is_still_the_cause() -> None:
    class Empty(Exception):
        def __len__(self) -> int:
            return 0

    error = ValueError("a")
    error.__cause__ = Empty()
    cause = load_error(dump_error(error)).cause
    assert cause is not None
    assert cause.short_name == "Empty"


def test_a_failure_of_a_step_that_a_user_made_up_is_recorded() -> None:
    for failure in (
        StepFailed("a", 1, "oops"),
        StepFailed("a", 1, RecordedError("x", "y", args=(object(),))),
    ):
        assert load_error(dump_failure(JsonSerializer(), failure)).short_name == "StepFailed"


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
