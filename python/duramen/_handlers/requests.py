"""What handlers answer while they run: updates, which change them, and queries, which only look."""

from __future__ import annotations

import inspect
import operator
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, overload
from weakref import WeakKeyDictionary

from duramen._values.checks import check_id
from duramen.errors import InvalidId, WorkflowDefinitionError

from . import signatures
from .callables import annotated, refusal

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

__all__ = ["Plan", "Query", "Update", "check_name", "plan_of_request"]

P = TypeVar("P")
R = TypeVar("R")
Q = TypeVar("Q")
S = TypeVar("S")

UNSET: Any = object()


class Update(Generic[P, R]):
    """The name of an update with the types of its payload and its result, for the handler and its callers.

    Give it in place of the name to `Context.on_update` and `Runtime.update`: type checkers then know both.

    >>> deposit = Update("deposit", int, float)
    >>> deposit
    Update('deposit', int, float)
    """

    __slots__ = ("name", "payload", "result")

    if TYPE_CHECKING:

        @overload
        def __init__(self, name: str, payload: type[P], result: type[R]) -> None: ...
        @overload
        def __init__(self: Update[Any, S], name: str, payload: Any, result: type[S]) -> None: ...
        @overload
        def __init__(self: Update[Q, Any], name: str, payload: type[Q], result: Any = ...) -> None: ...
        @overload
        def __init__(self: Update[Any, Any], name: str, payload: Any = ..., result: Any = ...) -> None: ...

    def __init__(self, name: str, payload: Any = None, result: Any = None) -> None:
        self.name = check_name("update", name)
        self.payload = payload
        """What the payload is read as; None: whatever it is."""
        self.result = result
        for annotation, what in ((payload, "payload"), (result, "result")):
            signatures.check_stored(annotation, f"{what} of update {name!r}")

    def __repr__(self) -> str:
        return f"Update({self.name!r}, {_name_of(self.payload)}, {_name_of(self.result)})"


class Query(Generic[R]):
    """The name of a query with the type of its answer: as `Update`, for `Context.on_query`, `Runtime.query`.

    >>> Query("balance", int)
    Query('balance', int)
    """

    __slots__ = ("name", "result")

    if TYPE_CHECKING:

        @overload
        def __init__(self, name: str, result: type[R]) -> None: ...
        @overload
        def __init__(self: Query[Any], name: str, result: Any = ...) -> None: ...

    def __init__(self, name: str, result: Any = None) -> None:
        self.name = check_name("query", name)
        self.result = result

    def __repr__(self) -> str:
        return f"Query({self.name!r}, {_name_of(self.result)})"


def _name_of(annotation: Any) -> str:
    return getattr(annotation, "__qualname__", None) or str(annotation)


def check_name(what: str, name: Any) -> str:
    """Give the name of an update or a query back if it can be one.

    >>> check_name("update", "__close")
    Traceback (most recent call last):
    duramen.errors.InvalidId: update names beginning with '__' are reserved: choose another than '__close'
    """
    checked = check_id(f"{what} name", name)
    if checked.startswith("__"):
        raise InvalidId(f"{what} names beginning with '__' are reserved: choose another than {name!r}")
    return checked


class Plan(NamedTuple):
    """What is known of a function that applies updates."""

    takes_payload: bool
    payload: Any
    result: Any


_plans: WeakKeyDictionary[CodeType, tuple[tuple[Any, ...], Plan]] = WeakKeyDictionary()
"""By the code of the functions: each replay defines the same ones anew."""


def plan_of_request(name: str, fn: Any) -> Plan:
    """Read the signature of a function that applies the updates of a name.

    Raises:
        WorkflowDefinitionError: it cannot apply any.
    """
    where = f"update {name!r}"
    if why := refusal(fn):
        raise WorkflowDefinitionError(f"{where}: {why}")
    carrier = annotated(fn)
    code: CodeType | None = getattr(carrier, "__code__", None)
    marks = (fn is carrier, *getattr(carrier, "__annotations__", {}).values())
    found = None if code is None else _plans.get(code)
    # Only what is the very same annotation says the same: a class may be defined in the handler.
    if found is not None and _are_same(found[0], marks):
        return found[1]
    plan = _read_plan(where, fn)
    if code is not None:
        _plans[code] = (marks, plan)
    return plan


def _are_same(some: tuple[Any, ...], others: tuple[Any, ...]) -> bool:
    return len(some) == len(others) and all(map(operator.is_, some, others))


def _read_plan(where: str, fn: Callable[..., object]) -> Plan:
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):  # a built-in
        return Plan(True, None, None)
    positional = [
        each for each in parameters if each.kind in {each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD}
    ]
    needed = [each for each in positional if each.default is each.empty]
    named = [each for each in parameters if each.kind is each.KEYWORD_ONLY and each.default is each.empty]
    if len(needed) > 1 or named:
        raise WorkflowDefinitionError(
            f"{where}: its function needs {len(needed) + len(named)} arguments, and is given the payload or "
            "nothing: put what belongs together into a model or a dataclass"
        )
    starred = any(each.kind is each.VAR_POSITIONAL for each in parameters)
    try:
        payload = signatures.hint(fn, positional[0].name) if positional else None
        result = signatures.result_type(fn, where)
    except NameError as error:
        raise signatures.unresolved(where, error) from error
    signatures.check_stored(payload, f"payload of {where}")
    signatures.check_stored(result, f"result of {where}")
    return Plan(bool(positional) or starred, payload, result)
