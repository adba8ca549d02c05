"""Everything that may be given to `@workflow`: it works, or one sentence says what to write."""

import asyncio
import functools
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Optional, Protocol, Self, TypeVar

import pytest

from duramen import Context, RunRequest, Runtime, step, workflow
from duramen.errors import InvalidArgument, SerializationError, WorkflowDefinitionError
from tests.handlers import later

if TYPE_CHECKING:
    from decimal import Decimal as Ctx

pytestmark = pytest.mark.anyio
T = TypeVar("T")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def run(definition: Any, *given: Any) -> Any:
    async with Runtime("memory://", workflows=[definition]) as runtime:
        result = await runtime.run(definition, *given)
        assert result.kind == "completed", result
        return result.output


async def doubled(ctx: Context, n: int) -> int:
    """Doc."""
    assert ctx.run_id
    return 2 * n


async def scaled(ctx: Context, n: int, *, factor: int) -> int:
    return factor * n


async def factor_first(factor: int, ctx: Context, n: int) -> int:
    return factor * n


class Service:
    factor = 2

    async def method(self, ctx: Context, n: int) -> int:
        return self.factor * n

    async def __call__(self, ctx: Context, n: int) -> int:
        return self.factor * n

    @workflow
    @staticmethod
    async def static(ctx: Context, n: int) -> int:
        return 2 * n

    @staticmethod
    @workflow
    async def static_outside(ctx: Context, n: int) -> int:
        return 2 * n

    @classmethod
    async def of_class(cls, ctx: Context, n: int) -> int:
        return cls.factor * n


def passing_on(fn: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
    @functools.wraps(fn)
    async def wrapper(*args: Any, **kwargs: Any) -> T:
        return await fn(*args, **kwargs)

    return wrapper


def hiding(fn: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
    async def wrapper(*args: Any, **kwargs: Any) -> T:
        return await fn(*args, **kwargs)

    return wrapper


async def positional_only(ctx: Context, n: int, /) -> int:
    return 2 * n


async def keyword_default(ctx: Context, n: int, *, factor: int = 2) -> int:
    return factor * n


async def optional_context(ctx: Optional[Context], n: int) -> int:  # noqa: UP045
    return 2 * n


async def default_context(ctx: Context = None, n: int = 1) -> int:
    assert ctx is not None
    return 2 * n


async def annotated_context(ctx: Annotated[Context[Any], "x"], n: Annotated[int, "y"]) -> int:
    return 2 * n


class Narrow(Protocol):
    run_id: str


async def protocol_context(ctx: Narrow, n: int) -> int:
    return 2 * n


async def context_for_checkers(ctx: "Ctx", n: "int") -> "int":
    return 2 * n


async def unannotated(ctx, n):
    return 2 * n


async def generic(ctx: Context[T], n: T) -> T:
    return 2 * n


GOOD: dict[str, tuple[Any, str | None]] = {
    "function": (doubled, "doubled"),
    "partial": (functools.partial(scaled, factor=2), "scaled"),
    "partial of partial": (functools.partial(functools.partial(scaled), factor=2), "scaled"),
    "partial of a first argument": (functools.partial(factor_first, 2), "factor_first"),
    "bound method": (Service().method, "method"),
    "bound class method": (Service.of_class, "of_class"),
    "wrapped": (passing_on(doubled), "doubled"),
    "positional only": (positional_only, "positional_only"),
    "keyword with a default": (keyword_default, "keyword_default"),
    "optional context": (optional_context, "optional_context"),
    "default context": (default_context, "default_context"),
    "annotated context": (annotated_context, "annotated_context"),
    "protocol as context": (protocol_context, "protocol_context"),
    "context for type checkers": (context_for_checkers, "context_for_checkers"),
    "no annotations": (unannotated, "unannotated"),
    "generic": (generic, "generic"),
    "from future": (later.doubled, "doubled"),
}


@pytest.mark.parametrize("name", list(GOOD))
async def test_what_is_called_like_a_handler_is_one(name: str) -> None:
    handler, expected = GOOD[name]
    definition = workflow(handler)
    assert definition.name == expected
    assert definition.has_input
    assert await run(definition, 21) == 42


@pytest.mark.parametrize("name", ["static", "static_outside"])
async def test_static_methods_are_workflows_of_their_class(name: str) -> None:
    assert await run(getattr(Service, name), 21) == 42
    assert await run(getattr(Service(), name), 21) == 42


async def test_an_object_that_is_called_like_a_handler_is_one_under_a_name() -> None:
    definition = workflow(name="service")(Service())
    assert definition.input_type is int
    assert definition.location.startswith(__file__)
    assert await run(definition, 21) == 42
    with pytest.raises(WorkflowDefinitionError, match="name='…'"):
        workflow(Service())


def test_facts_are_those_of_the_function_inside() -> None:
    definition = workflow(functools.partial(doubled))
    assert (definition.description, definition.module, definition.input_type) == ("Doc.", __name__, int)
    assert definition.location == workflow(doubled).location


# -- inputs that were not given ------------------------------------------------------------------------------


@workflow
async def thrice(ctx: Context, n: int = 3) -> int:
    return n


@workflow
async def maybe(ctx: Context, n: int | None = 3) -> int | None:
    return n


@workflow
async def untyped_default(ctx: Context, n=3):
    return n


@workflow
async def none_at_all(ctx: Context, n: int | None) -> int | None:
    return n


@pytest.mark.parametrize("definition", [thrice, maybe, untyped_default], ids=lambda each: each.name)
async def test_an_input_with_a_default_may_be_left_out(definition: Any) -> None:
    assert await run(definition) == 3
    assert await run(definition, 4) == 4


async def test_none_is_an_input_and_not_the_lack_of_one() -> None:
    assert await run(maybe, None) is None
    assert await run(untyped_default, None) is None
    assert await run(none_at_all) is None
    with pytest.raises(SerializationError):
        await run(thrice, None)


async def test_every_way_to_create_a_run_knows_the_default() -> None:
    async with Runtime("memory://", workflows=[thrice]) as runtime:
        handles = [
            await runtime.start(thrice, run_id="start"),
            await runtime.start("thrice", run_id="by name"),
            await runtime.enqueue(thrice, run_id="enqueue"),
            *await runtime.enqueue_many([RunRequest(thrice, run_id="many")]),
        ]
        await runtime.sweep()
        assert [await handle.result(timeout=30) for handle in handles] == [3] * 4
        assert (await runtime.get("enqueue")).input == 3

    def synchronously() -> Any:
        with Runtime("memory://", workflows=[thrice]).sync as blocking:
            return [blocking.start(thrice).result(timeout=30), blocking.run(thrice).output]

    assert await asyncio.to_thread(synchronously) == [3, 3]


async def test_a_run_keeps_the_default_that_it_began_with() -> None:
    def of(default: int) -> Any:
        async def handler(ctx: Context, n: int = default) -> int:
            await ctx.wait_for_event("go")
            return n

        return workflow(name="w")(handler)

    async with Runtime("memory://", workflows=[of(1)]) as runtime:
        await runtime.run("w", run_id="r")
        snapshot = await runtime.get("r")
    assert snapshot.input == 1


async def test_a_workflow_without_input_refuses_one() -> None:
    @workflow
    async def alone(ctx: Context) -> int:
        return 1

    assert await run(alone) == 1
    assert await run(alone, None) == 1
    with pytest.raises(InvalidArgument, match="takes no input"):
        await run(alone, 3)


# -- what cannot be a handler --------------------------------------------------------------------------------


def plain(ctx: Context) -> int: ...
async def stream(ctx: Context) -> AsyncIterator[int]:
    yield 1


def numbers(ctx: Context) -> Iterator[int]:
    yield 1


async def reads(ctx: Context) -> AsyncIterator[int]: ...
async def reads_plainly(ctx: Context) -> Iterator[int]: ...
async def gives_awaitable(ctx: Context) -> Awaitable[int]: ...
async def gives_self(ctx: Context) -> Self: ...
async def nothing() -> None: ...
async def star(*args: Any) -> None: ...
async def keywords(ctx: Context, **options: Any) -> None: ...
async def context_second(n: int, ctx: Context) -> None: ...
async def context_second_bare(n, ctx: Context) -> None: ...
async def no_context(n: int) -> None: ...
async def three(ctx: Context, a: int, b: int = 0) -> None: ...
async def bad_default(ctx: Context, n: int = "x") -> None: ...
async def implicit_optional(ctx: Context, n: int = None) -> None: ...  # noqa: RUF013
async def object_default(ctx: Context, n=object()) -> None: ...  # noqa: B008


BAD: dict[str, tuple[Any, str]] = {
    "plain function": (plain, r"write `async def"),
    "lambda": (lambda ctx: None, r"write `async def"),
    "async generator": (stream, r"return one value.* emit"),
    "generator": (numbers, r"return one value, such as a list"),
    "partial of a generator": (functools.partial(stream), r"return one value"),
    "class": (Service, r"is a class: decorate an `async def` function"),
    "text": ("shop", r"name='shop'"),
    "number": (3, r"give a function"),
    "workflow": (workflow(doubled), r"a workflow already: decorate .* once"),
    "step": (step(doubled), r"a step already: decorate .* once"),
    "method of nobody": (Service.method, r"workflow\(obj.method\)"),
    "class method of nobody": (Service.__dict__["of_class"], r"@classmethod over the decorator"),
    "hidden parameters": (hiding(doubled), r"functools.wraps"),
    "star": (star, r"takes \*args.*leave it out"),
    "keywords": (keywords, r"takes \*\*options.*leave it out"),
    "keyword only": (scaled, r"functools.partial\(…, factor=…\)"),
    "no parameters": (nothing, r"async def …\(ctx: Context\)"),
    "no context": (no_context, r"async def …\(ctx: Context, n: …\)"),
    "context second": (context_second, r"async def …\(ctx: Context, n: …\)"),
    "unannotated first": (context_second_bare, r"the context is the first parameter"),
    "three": (three, r"not a, b: put several values into a model"),
    "reads": (reads, r"return a list"),
    "reads plainly": (reads_plainly, r"return a list"),
    "awaitable": (gives_awaitable, r"await it"),
    "Self": (gives_self, r"name it instead"),
    "bad default": (bad_default, r"default of 'n'"),
    "implicit optional": (implicit_optional, r"default of 'n'"),
    "object as default": (object_default, r"default of 'n'"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_what_cannot_be_a_handler_is_told_what_to_write(name: str) -> None:
    given, text = BAD[name]
    with pytest.raises(WorkflowDefinitionError, match=text):
        workflow(name="w")(given) if name != "text" else workflow(given)


def test_a_coroutine_is_closed_with_its_refusal() -> None:
    context: Any = None
    coroutine: Any = doubled(context, 3)
    with pytest.raises(WorkflowDefinitionError, match="not the call"):
        workflow(name="w")(coroutine)
    coroutine.close()


def test_a_result_that_never_comes_is_no_type() -> None:
    @workflow
    async def for_ever(ctx: Context) -> NoReturn: ...

    assert for_ever.output_type is None


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"name": "a\nb"}, "control character"),
        ({"name": "\ud800"}, "half a character"),
        ({"name": 3}, "give a string"),
        ({"name": "x" * 256}, "at most 255"),
        ({"version": 2}, "version='2'"),
        ({"version": 1.5}, r"version='1\.5'"),
        ({"version": None}, "give a string"),
        ({"retry": 3}, r"retry=Retry\(attempts=3\)"),
        ({"retry": True}, r"retry=Retry\(attempts=3\)"),
        ({"retry": False}, r"retry=Retry\(attempts=1\)"),
        ({"timeout": True}, "timedelta, or seconds"),
        ({"timeout": "1h"}, "timedelta, or seconds"),
        ({"timeout": float("nan")}, "finite"),
        ({"timeout": 0}, "leave it out"),
        ({"tags": "abc"}, "list of strings"),
        ({"tags": 3}, "list of strings"),
        ({"tags": [3]}, "give a string"),
        ({"tags": [""]}, "at least one character"),
        ({"events": ["paid"]}, "events={'paid'"),
        ({"events": 3}, "events={'paid'"),
        ({"events": {3: int}}, "give a string"),
        ({"events": {"__x": int}}, "another name"),
        ({"previous": workflow(doubled)}, r"previous=\[…\]"),
        ({"previous": [doubled]}, "decorate it with @workflow"),
        ({"state": doubled}, "give a class"),
        ({"state": object()}, "give a class"),
        ({"description": 3}, "give a text"),
        ({"previous": None}, r"previous=\[…\]"),
    ],
    ids=str,
)
def test_options_that_cannot_work_are_refused_where_they_stand(options: dict[str, Any], text: str) -> None:
    with pytest.raises(WorkflowDefinitionError, match=text) as raised:
        workflow(**options)(doubled)
    assert str(raised.value).startswith("workflow ")


def test_an_option_that_does_not_exist_is_named() -> None:
    with pytest.raises(TypeError, match="timeot"):
        workflow(timeot=3)(doubled)


def test_names_may_be_what_a_store_can_keep() -> None:
    for name in ("a b", "fulfilment/é#2", "日本", "x" * 255):
        assert workflow(name=name, tags=["a", "a"])(doubled).name == name


@pytest.mark.skipif(sys.version_info < (3, 12), reason="type parameters are of 3.12")
async def test_type_parameters_of_functions_are_any_json() -> None:
    names: dict[str, Any] = {"Context": Context}
    exec("async def same[T](ctx: Context[T], x: list[T]) -> list[T]:\n    return x\n", names)
    assert await run(workflow(names["same"]), [1, "a"]) == [1, "a"]
