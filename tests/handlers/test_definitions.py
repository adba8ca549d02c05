"""What may be a workflow or a step: decided when it is defined, with a sentence that says what to do."""

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Awaitable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from duramen._handlers.context import Context
from duramen._handlers.step import plan_of
from duramen._handlers.workflow import Retry, StepDef, WorkflowDef, step, step_context, workflow
from duramen.errors import NotADurableContext, WorkflowDefinitionError

if TYPE_CHECKING:
    from decimal import Decimal


async def plain(ctx: Context, n: int) -> list[str]:
    """Doc."""
    return [str(n)]


class Later:
    @step
    async def early(self, n: int) -> "LaterType": ...


class LaterType: ...


def test_types_name_and_description_come_from_the_function() -> None:
    definition = workflow(plain)
    assert (definition.name, definition.version, definition.description) == ("plain", "1", "Doc.")
    assert (definition.input_type, definition.output_type, definition.has_input) == (int, list[str], True)
    assert definition.previous == ()
    assert definition.timeout_ms is None


def test_options() -> None:
    old = workflow(name="w", version="1")(plain)
    new = workflow(
        name="w",
        version="2",
        previous=[old],
        input=str,
        output=Any,
        timeout=timedelta(days=1),
        retry=Retry(attempts=2),
        tags=["a"],
        description="d",
        events={"paid": int},
    )(plain)
    assert new.previous == (old,)
    assert (new.input_type, new.output_type, new.timeout_ms) == (str, Any, 86_400_000)
    assert (new.tags, new.description) == (("a",), "d")
    assert (new.event_type("paid"), new.event_type("other")) == (int, None)
    assert repr(new) == "<workflow 'w' version '2'>"


def test_a_handler_without_input() -> None:
    @workflow
    async def handler(ctx: Context) -> None: ...

    assert not handler.has_input
    assert handler.input_type is type(None)


def test_a_definition_can_be_called_like_its_handler() -> None:
    context: Any = None
    assert asyncio.run(workflow(plain)(context, 3)) == ["3"]


def test_annotations_as_strings_and_names_for_type_checkers_only() -> None:
    class Local:
        n: int

    @workflow
    async def handler(ctx: "Unknown", n: "list[int]") -> "dict[str, int]": ...  # noqa: F821

    assert (handler.input_type, handler.output_type) == (list[int], dict[str, int])

    @workflow
    async def needs(ctx: Context, n: "Decimal") -> None: ...

    with pytest.raises(WorkflowDefinitionError, match=r"workflow 'needs'.*TYPE_CHECKING"):
        needs.resolve()


async def _generator(ctx: Context) -> AsyncIterator[int]:
    yield 1


async def _no_context() -> None: ...
async def _input_free(ctx: Context) -> None: ...
async def _two_inputs(ctx: Context, a: int, b: int) -> None: ...
async def _keyword(ctx: Context, *, a: int) -> None: ...
async def _star(ctx: Context, *a: int) -> None: ...
async def _lock(ctx: Context, a: threading.Lock) -> None: ...
async def _lock_out(ctx: Context) -> threading.Lock: ...


BAD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "not async": (lambda ctx: None, {"name": "x"}, "async def"),
    "generator": (_generator, {}, "async generator"),
    "no context": (_no_context, {}, "takes no context"),
    "two inputs": (_two_inputs, {}, "at most one input"),
    "keyword": (_keyword, {}, "at most one input"),
    "star": (_star, {}, "at most one input"),
    "input type": (_lock, {}, "input of workflow '_lock'"),
    "output type": (_lock_out, {}, "output of workflow '_lock_out'"),
    "empty name": (plain, {"name": ""}, "name"),
    "long name": (plain, {"name": "x" * 256}, "255"),
    "NUL in name": (plain, {"name": "a\0"}, "control character"),
    "version": (plain, {"version": 2}, "version"),
    "negative timeout": (plain, {"timeout": -1}, "negative"),
    "zero timeout": (plain, {"timeout": 0}, "timeout is 0"),
    "retry": (plain, {"retry": 3}, "Retry"),
    "tags": (plain, {"tags": "abc"}, "list"),
    "previous": (plain, {"previous": [plain]}, "not a workflow"),
    "previous name": (plain, {"previous": [workflow(name="other")(plain)]}, "same name="),
    "previous version": (plain, {"previous": [workflow(plain)]}, "version '1' is there twice"),
    "reserved event": (plain, {"events": {"__x": int}}, "reserved"),
    "event type": (plain, {"events": {"x": threading.Lock}}, "event 'x'"),
    "state": (plain, {"state": 3}, "state"),
    "maker of the state": (plain, {"state": lambda: 3}, "give a class"),
    "state type with arguments": (plain, {"state": dict[str, threading.Lock]}, "state of workflow"),
    "state type": (plain, {"state": LaterType}, "state of workflow"),
    "input of none": (_input_free, {"input": int}, "takes none"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_workflows_are_refused_where_they_are_defined(name: str) -> None:
    handler, options, text = BAD[name]
    with pytest.raises(WorkflowDefinitionError, match=text):
        WorkflowDef(handler, **options)


# -- steps ---------------------------------------------------------------------------------------------------


@step
async def double(n: int) -> int:
    """Twice."""
    return 2 * n


@step(name="other", retry=Retry(attempts=7), timeout=timedelta(seconds=3))
def treble(n: int) -> int:
    return 3 * n


def test_steps_are_plain_functions_outside_of_runs() -> None:
    assert asyncio.run(double(4)) == 8
    assert asyncio.run(treble(n=4)) == 12
    assert (double.name, treble.name, treble.timeout) == ("double", "other", 3.0)
    assert double.__doc__ == "Twice."
    assert double.__name__ == "double"
    with pytest.raises(NotADurableContext, match="outside of a step"):
        step_context()


def test_plans_are_worked_out_once_and_see_through_wrappers() -> None:
    async def bare(n: int) -> str: ...
    def returns_awaitable() -> Awaitable[int]: ...
    def unannotated(): ...

    class Service:
        async def method(self) -> bytes: ...
        async def __call__(self) -> float: ...
        @step(timeout=9)
        async def declared(self, n: int) -> int:
            return n

    service = Service()
    assert plan_of(bare) is plan_of(bare)
    assert plan_of(bare).result is str
    assert plan_of(returns_awaitable).result is int
    assert plan_of(unannotated).result is None
    assert plan_of(service.method).result is bytes
    assert plan_of(service).result is float
    assert plan_of(functools.partial(functools.partial(bare), 1)).result is str
    assert plan_of(len).result is None
    partial = plan_of(functools.partial(double, n=1))
    assert partial.result is int
    assert partial.call.func is double.fn
    assert plan_of(functools.partial(treble, 1)).timeout == 3.0
    bound = plan_of(service.declared)
    assert bound.timeout == 9.0
    assert bound.result is int
    assert asyncio.run(service.declared(3)) == 3

    @functools.wraps(bare)
    async def wrapper(*args: Any) -> Any: ...

    assert plan_of(wrapper).fn is wrapper


def test_a_name_defined_further_down_is_found_at_first_use() -> None:
    with pytest.raises(WorkflowDefinitionError, match="result of step 'early'"):
        _ = Later.early.duramen_plan  # a class that cannot be stored, found once it exists


@pytest.mark.parametrize("name", ["class", "generator", "retry", "timeout", "name", "no name", "result"])
def test_bad_steps_are_refused_where_they_are_defined(name: str) -> None:
    def locked() -> threading.Lock: ...

    cases: dict[str, tuple[Any, dict[str, Any]]] = {
        "class": (int, {}),
        "generator": (_generator, {}),
        "retry": (double.fn, {"retry": 3}),
        "timeout": (double.fn, {"timeout": 0}),
        "name": (double.fn, {"name": "a#2"}),
        "no name": (functools.partial(double.fn, 1), {}),
        "result": (locked, {}),
    }
    fn, options = cases[name]
    with pytest.raises(WorkflowDefinitionError):
        StepDef(fn, **options)


def test_a_function_that_was_a_step_without_the_decorator_gets_a_plan_of_its_own_with_it() -> None:
    async def charge() -> int:
        return 1

    plain = plan_of(charge)
    declared = step(name="pay", timeout=3)(charge)
    assert plan_of(declared) is not plain
    assert (plan_of(declared).fn, plan_of(declared).timeout) == (declared, 3)
    assert plan_of(charge).fn is charge
