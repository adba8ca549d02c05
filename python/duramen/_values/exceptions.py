"""Exceptions as payloads: facts about them out, and where it is safe the exception itself back in.

Nothing is imported by name when an error is read: only classes that were registered, and the built-in ones,
are made again. Everything else stays a `RecordedError`.

Whether a class was registered is recorded too. A handler may branch on the class of a step's exception, so a
replay makes it again if and only if the first pass did; where it no longer can, the run is parked.
"""

from __future__ import annotations

import builtins
import sys
import traceback
from contextlib import suppress
from pathlib import PurePath
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from pydantic_core import from_json, to_json

from duramen.errors import (
    ChildCancelled,
    ChildConflict,
    ChildFailed,
    ChildTerminated,
    DeserializationError,
    Fatal,
    InvalidArgument,
    RecordedError,
    StepFailed,
    StepTimeout,
)

from .fidelity import is_plain_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

E = TypeVar("E", bound=BaseException)

_MAX_TEXT = 32 * 1024
_MAX_DATA = 16 * 1024
_MAX_CAUSES = 8
_MAX_MEMBERS = 32
_MAX_FRAMES = 60
_MAX_RECORDS = 64

_registry: dict[str, type[BaseException]] = {}
"""The classes that are made again, by each name they were ever recorded under."""

_names: dict[type[BaseException], str] = {}
"""The name that each of them is recorded under now."""


def _clean(text: str) -> str:
    return str.encode(text, "utf-8", "backslashreplace").decode()


def _text(value: Any) -> str:
    """The text of anything, as a `str` and nothing derived from it."""
    try:
        return _clean(str(value))
    except KeyboardInterrupt:
        raise
    except BaseException as failure:  # noqa: BLE001 - a broken __str__ must not hide the error itself
        return f"<its __str__ raised {type(failure).__name__}>"


def _name(cls: type[BaseException]) -> str:
    """The name of a class, the same whether its module is imported or is the program that was started."""
    try:
        module, name = _text(cls.__module__), _text(cls.__qualname__)
    except Exception:  # noqa: BLE001 - a metaclass may do anything
        return "unknown.unknown"
    return f"{_program() if module == '__main__' else module}.{name}"


def _program() -> str:
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    # A script's folder is where its process imports from, so others import it under the file's name.
    file = getattr(main, "__file__", None)
    return PurePath(file).stem if isinstance(file, str) else "__main__"


@overload
def register_exception(cls: type[E], /) -> type[E]: ...


@overload
def register_exception(
    cls: type[E], /, *, name: str | None = None, aliases: Iterable[str] = ()
) -> type[E]: ...


@overload
def register_exception(
    *, name: str | None = None, aliases: Iterable[str] = ()
) -> Callable[[type[E]], type[E]]: ...


def register_exception(
    cls: type[E] | None = None, /, *, name: str | None = None, aliases: Iterable[str] = ()
) -> type[E] | Callable[[type[E]], type[E]]:
    """Register an exception class, so that handlers catch it as itself. Usable as a decorator.

    It is made again without its constructor: with its ``args``, and with those of its attributes that are
    plain JSON. A run whose journal holds an exception of a registered class needs that class for its
    replay: where no class has the name that was recorded, the run is parked as stuck and says so.

    Args:
        cls: the class; without it, a decorator is returned.
        name: what it is recorded as. The default is ``module.qualname``, which changes when the class
            moves (for a class of the program itself, the module is the name that others import it by).
        aliases: names under which it was recorded before.

    Raises:
        InvalidArgument: it is no exception class, or another class has one of the names.

    >>> @register_exception(name="shop.OutOfStock", aliases=["shop.errors.OutOfStock"])
    ... class OutOfStock(Exception): ...
    >>> type(rebuild_error(load_error(dump_error(OutOfStock("bolts"))))).__name__
    'OutOfStock'
    """
    if cls is None:
        return lambda cls: _register(cls, name, aliases)
    return _register(cls, name, aliases)


def _register(cls: type[E], name: str | None, aliases: Iterable[str]) -> type[E]:
    if not (isinstance(cls, type) and issubclass(cls, BaseException)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidArgument(f"{cls!r} is not an exception class")
    if isinstance(aliases, str):
        raise InvalidArgument(f"aliases is {aliases!r}: give a list of names")
    own = _name(cls)
    names = [own if name is None else name, own, *aliases]
    for each in names:
        if not isinstance(each, str) or not each or each != _clean(each):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgument(f"{each!r} is no name for an exception class: give a text")
        other = _registry.get(each)
        # The same class made anew (a module that was reloaded, a cell that ran again) takes its own place.
        if other is not None and other is not cls and _name(other) != own:
            raise InvalidArgument(
                f"{each!r} already names the exception class {_name(other)}: choose another name for {own}"
            )
    for each in names:
        _registry[each] = cls
    _names[cls] = names[0]
    return cls


register_exception(Fatal)

_STEP_FAILURES: dict[str, type[StepFailed]] = {_name(cls): cls for cls in (StepFailed, StepTimeout)}
"""A run that lets a step's failure pass ends with one of these: made again for the sake of its cause."""

_CHILD_FAILURES: dict[str, type[ChildFailed]] = {
    _name(cls): cls for cls in (ChildFailed, ChildCancelled, ChildTerminated, ChildConflict)
}
"""The same for the end of a child."""


class _Room:
    """What is left of the space that one exception may take, with all that belongs to it."""

    def __init__(self, max_traceback: int) -> None:
        self.max_traceback = max_traceback
        # Twice the limit for all of them together, or a long chain of causes would multiply it.
        self.traceback = 2 * max_traceback
        self.text = 3 * _MAX_TEXT
        self.data = 4 * _MAX_DATA
        self.records = _MAX_RECORDS

    def cut(self, text: str) -> str:
        text = _clean(text[:_MAX_TEXT])[: min(_MAX_TEXT, self.text)]
        self.text -= len(text)
        return text

    def plain(self, value: Any) -> bool:
        """Whether it is plain JSON and there is room for it."""
        if not is_plain_json(value):
            return False
        size = len(to_json(value))
        if size > min(_MAX_DATA, self.data):
            return False
        self.data -= size
        return True


def dump_error(error: BaseException, *, max_traceback: int = 16 * 1024) -> bytes:
    """Give the payload of an exception. It never fails and is never huge, whatever the exception holds.

    Its cause (or a context that was not suppressed) and the members of a group go with it.

    Args:
        error: the exception.
        max_traceback: the most characters of one traceback; its oldest frames go first. 0 records none.

    >>> print(load_error(dump_error(ValueError("no such card"))))
    ValueError: no such card
    """
    return to_json(_record(error, _Room(max_traceback), (id(error),)))


# A user's class may define any of these itself. What the interpreter keeps is read, past all that.
_args_of = cast("Any", BaseException.args).__get__
_set_args = cast("Any", BaseException.args).__set__
_cause_of = cast("Any", BaseException.__cause__).__get__
_set_cause = cast("Any", BaseException.__cause__).__set__
_context_of = cast("Any", BaseException.__context__).__get__
_suppressed = cast("Any", BaseException.__suppress_context__).__get__
_traceback_of = cast("Any", BaseException.__traceback__).__get__
_dict_of = BaseException.__dict__["__dict__"].__get__
_members_of = cast("Any", BaseExceptionGroup.exceptions).__get__
_message_of = cast("Any", BaseExceptionGroup.message).__get__
_mro_of = type.__dict__["__mro__"].__get__
_vars_of = type.__dict__["__dict__"].__get__


def cause_of(error: BaseException) -> BaseException | None:
    """What an exception was raised from: its cause, else a context that was not suppressed."""
    cause = _cause_of(error)
    return cause if cause is not None or _suppressed(error) else _context_of(error)


def members_of(error: BaseException) -> tuple[BaseException, ...]:
    """The members of a group; none for another exception."""
    return _members_of(error) if is_group(type(error)) else ()


def is_group(cls: type[BaseException]) -> bool:
    """Whether exceptions of that class are groups."""
    return issubclass(cls, BaseExceptionGroup)


def _record(error: BaseException, room: _Room, seen: tuple[int, ...]) -> dict[str, Any]:
    room.records -= 1
    cls = type(error)
    name = _name(cls)
    record: dict[str, Any] = {"type": name, "message": room.cut(_text(error))}
    if not name.startswith("builtins."):
        record["registered"] = _names.get(cls, "")
    text = _traceback(_traceback_of(error), min(room.max_traceback, room.traceback))
    if text:
        room.traceback -= len(text)
        record["traceback"] = text
    facts: dict[Any, Any] = _dict_of(error)
    if notes := _notes(facts.get("__notes__"), room):
        record["notes"] = notes
    if is_group(cls):
        record["args"] = [room.cut(_text(_message_of(error)))]
        if len(seen) <= _MAX_CAUSES:
            record["exceptions"] = [
                _record(member, room, (*seen, id(member)))
                for member in _members_of(error)[:_MAX_MEMBERS]
                if id(member) not in seen and room.records > 0
            ]
    elif room.plain(args := list(_args_of(error))):
        record["args"] = args
    attributes = {
        key: value
        for key, value in [*_slot_values(error, record.get("args", ())), *facts.items()]
        if type(key) is str and not key.startswith("__") and room.plain({key: value})
    }
    if attributes:
        record["attributes"] = attributes
    cause = cause_of(error)
    if cause is not None and id(cause) not in seen and len(seen) <= _MAX_CAUSES and room.records > 0:
        record["cause"] = _record(cause, room, (*seen, id(cause)))
    return record


def _slots(cls: type[BaseException]) -> Iterator[tuple[str, Any]]:
    """Where instances keep attributes outside of their dictionaries: `OSError.filename`, ``__slots__``."""
    for each in _mro_of(cls):
        for name, what in _vars_of(each).items():
            if type(what) is MemberDescriptorType and not name.startswith("__"):
                yield name, what


def _slot_values(error: BaseException, args: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """What is kept there, but for a built-in class's arguments, which its constructor puts there again."""
    for name, slot in _slots(type(error)):
        if slot is _OBJ:
            continue
        try:
            value = slot.__get__(error)
        except AttributeError:
            continue
        again = slot.__objclass__.__module__ == "builtins" and any(value is each for each in args)
        if value is not None and not again:
            yield name, value


_OBJ = vars(AttributeError)["obj"]
"""What had no such attribute: the user's object, of any size, and no fact about the error."""


def _set_attributes(error: BaseException, attributes: dict[str, Any]) -> None:
    slots = dict(_slots(type(error)))
    for name, value in attributes.items():
        if name not in slots:
            _dict_of(error)[name] = value
            continue
        with suppress(Exception):  # one that C code keeps as a number, or for itself
            slots[name].__set__(error, value)


def _notes(notes: Any, room: _Room) -> list[str]:
    if not isinstance(notes, list | tuple):
        return []
    return [room.cut(_text(note)) for note in list(cast("list[Any]", notes))[:16]]


def _traceback(trace: TracebackType | None, limit: int) -> str:
    # The machinery's own frames lead to every step alike; they say nothing.
    while trace is not None and _text(trace.tb_frame.f_globals.get("__name__", "")).startswith("duramen._"):
        trace = trace.tb_next
    if trace is None or limit <= 0:
        return ""
    try:
        lines = traceback.format_tb(trace, limit=-_MAX_FRAMES)
    except Exception as failure:  # noqa: BLE001 - it reads source files, and asks users' objects
        return f"<the traceback cannot be formatted: {type(failure).__name__}>"[:limit]
    size = 0
    for index in range(len(lines) - 1, -1, -1):
        size += len(lines[index])
        if size > limit:
            lines = lines[index + 1 :] or [lines[-1][-limit:]]
            break
    return _clean("".join(lines))


def load_error(data: bytes) -> RecordedError:
    """Read a payload of `dump_error`. Fields of a later version are ignored.

    Raises:
        DeserializationError: it is no such payload.
    """
    try:
        return _recorded(from_json(data))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DeserializationError("$", f"this is not a recorded error: {error}") from None


def _recorded(record: dict[str, Any]) -> RecordedError:
    args = record.get("args")
    cause = record.get("cause")
    return RecordedError(
        type_name=str(record["type"]),
        message=str(record["message"]),
        traceback=str(record.get("traceback", "")),
        cause=None if cause is None else _recorded(cause),
        notes=tuple(record.get("notes", ())),
        args=None if args is None else tuple(args),
        attributes=record.get("attributes"),
        exceptions=tuple(_recorded(member) for member in record.get("exceptions", ())),
        registered=record.get("registered"),
    )


def rebuild_error(recorded: RecordedError, *, as_recorded: bool = False) -> BaseException | None:
    """Make the exception again if its class is registered or built in; else None.

    What it was recorded as is kept in its attribute ``__recorded__``, with the traceback of the original.

    Args:
        recorded: the facts.
        as_recorded: whether to hold to what was registered when it was recorded, as a replay has to.

    Raises:
        DeserializationError: only with `as_recorded`: a class that was registered then is not now.

    >>> rebuild_error(load_error(dump_error(KeyError("card"))))
    KeyError('card')
    >>> rebuild_error(RecordedError("some.where.Else", "gone")) is None
    True
    """
    if (failure := _STEP_FAILURES.get(recorded.type_name)) is not None:
        return _step_failure(failure, recorded, as_recorded=as_recorded)
    if (failed := _CHILD_FAILURES.get(recorded.type_name)) is not None:
        return _child_failure(failed, recorded, as_recorded=as_recorded)
    cls = _class_of(recorded, as_recorded=as_recorded)
    if cls is None:
        return None
    cause = None if recorded.cause is None else rebuild_error(recorded.cause, as_recorded=as_recorded)
    members = [rebuild_error(member, as_recorded=as_recorded) for member in recorded.exceptions]
    error = _instance(cls, recorded, members)
    if error is None:
        return None
    facts: dict[str, Any] = _dict_of(error)
    _set_attributes(error, recorded.attributes or {})
    if recorded.notes:
        facts["__notes__"] = list(recorded.notes)
    facts["__recorded__"] = recorded
    if cause is not None:
        _set_cause(error, cause)
    return error


def stand_in(recorded: RecordedError) -> Exception:
    """An exception for rules to look at, of an error that was recorded in another process a moment ago.

    Of its own class if that is imported here, made without its constructor; else a `RuntimeError`.
    """
    module, _, name = recorded.type_name.rpartition(".")
    cls = getattr(sys.modules.get(module), name, None)
    error: BaseException | None = None
    if isinstance(cls, type) and issubclass(cls, Exception):
        error = _instance(cls, recorded, [])
    if not isinstance(error, Exception):
        error = RuntimeError(f"{recorded.type_name}: {recorded.message}")
    _set_attributes(error, recorded.attributes or {})
    return error


def _class_of(recorded: RecordedError, *, as_recorded: bool) -> type[BaseException] | None:
    name = recorded.registered
    if name == "" and as_recorded:
        return None
    cls = _registry.get(name or recorded.type_name)
    if cls is not None:
        return cls
    if name and as_recorded:
        raise DeserializationError(
            "$",
            f"the exception class {name!r} was registered when this was recorded, and none has that name "
            "now, so the handler would take another branch: register it, and if it has moved, with "
            f"register_exception(…, aliases=[{name!r}])",
        )
    module, _, name = recorded.type_name.rpartition(".")
    builtin = getattr(builtins, name, None) if module == "builtins" else None
    return builtin if isinstance(builtin, type) and issubclass(builtin, Exception) else None


def _step_failure(cls: type[StepFailed], recorded: RecordedError, *, as_recorded: bool) -> StepFailed | None:
    facts = recorded.attributes or {}
    operation_id, attempts = facts.get("operation_id"), facts.get("attempts")
    if recorded.cause is None or not isinstance(operation_id, str) or not isinstance(attempts, int):
        return None
    error = cls(operation_id, attempts, recorded.cause)
    error.__cause__ = rebuild_error(recorded.cause, as_recorded=as_recorded)
    return error


def _child_failure(
    cls: type[ChildFailed], recorded: RecordedError, *, as_recorded: bool
) -> ChildFailed | None:
    facts = recorded.attributes or {}
    run_id, operation_id = facts.get("run_id"), facts.get("operation_id")
    if recorded.cause is None or not isinstance(run_id, str) or not isinstance(operation_id, str):
        return None
    error = cls(run_id, operation_id, recorded.cause)
    error.__cause__ = rebuild_error(recorded.cause, as_recorded=as_recorded)
    return error


def _instance(
    cls: type[BaseException], recorded: RecordedError, members: list[BaseException | None]
) -> BaseException | None:
    """An instance with the arguments that were recorded, made without the constructor of a user's class.

    That one may take other arguments than those that it hands on, ask the clock, or do anything; and a replay
    has to give the handler what the first pass gave.
    """
    args: tuple[Any, ...] = recorded.args if recorded.args is not None else (recorded.message,)
    group = is_group(cls)
    if group:
        if not members or None in members:
            return None
        args = (args[0], members)
    # The constructor of the nearest built-in class knows the layout of its instances.
    native: Any = next(base for base in cls.__mro__ if base.__module__ == "builtins")
    try:
        error: BaseException = native.__new__(cls, *args)
        native.__init__(error, *args)
    except Exception:  # noqa: BLE001 - other arguments than it takes, or a class of C code with its own layout
        return None
    if not group:
        _set_args(error, args)
    return error
