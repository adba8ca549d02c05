"""A step that changes what it was given is warned of, by name, and one that does not never is."""

import asyncio
import functools
import re
import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from duramen import Context, Retry, step, workflow
from duramen.testing import ArgumentChanged, Environment, crash_everywhere


@dataclass
class Order:
    parcels: list[str] = field(default_factory=list[str])


class Cart(BaseModel):
    model_config = ConfigDict(extra="allow")
    items: list[str] = []


class Client:
    """No data: it may change as it likes."""

    calls = 0


def append(target: Any) -> None:
    target.append("x")


async def append_later(target: Any) -> None:
    await asyncio.sleep(0)
    target.append("x")


def update(target: Any, *, by: Any = None) -> None:
    target.update(by or {"a": 2})


def pack(order: Any) -> None:
    order.parcels.append("box")


def fill(cart: Any) -> None:
    cart.items.append("pen")


def extend(cart: Any) -> None:
    cart.extra = 1


def remember(value: str, seen: list[str] = []) -> None:  # noqa: B006 - what is tested
    seen.append(value)


def fails_after(target: list[Any]) -> None:
    target.append("x")
    raise ValueError


def swap(target: list[Any]) -> None:
    target[0] = object()


def use(client: Client) -> None:
    client.calls += 1


def raising(*_: Any) -> Any:
    raise SystemExit("from the argument")


class Hostile(BaseModel):
    x: int = 0
    __getattribute__ = raising
    __repr__ = raising
    __eq__ = raising
    __deepcopy__ = raising


CHANGES: dict[str, tuple[Callable[[], tuple[Any, ...]], str]] = {
    "a list": (lambda: (append, []), "argument 'target' changed"),
    "a list, later": (lambda: (append_later, []), "argument 'target' changed"),
    "a deque": (lambda: (append, deque()), "argument 'target' changed"),
    "a dictionary": (lambda: (update, {"a": 1}), r"argument 'target' \(at \.a\) changed"),
    "an equal value of another type": (
        lambda: (functools.partial(update, by={"a": True}), {"a": 1}), r"\(at \.a\) changed",
    ),
    "a set": (lambda: (update, {1}), "argument 'target' changed"),
    "bytes": (lambda: (append_byte, bytearray()), "argument 'target' changed"),
    "deep in it": (lambda: (pack, Order()), r"argument 'order' \(at \.parcels\) changed"),
    "a model": (lambda: (fill, Cart()), r"argument 'cart' \(at \.items\) changed"),
    "an extra field of a model": (lambda: (extend, Cart()), "argument 'cart' changed"),
    "of a partial": (lambda: (functools.partial(append, []),), "argument 'target' changed"),
    "of a partial, by name": (
        lambda: (functools.partial(functools.partial(pack), order=Order()),), "argument 'order'",
    ),
    "a default": (lambda: (remember, "x"), "the default of 'seen' changed"),
    "of a step with a name": (lambda: (step(name="other")(append), []), "argument 'target' changed"),
    "of a bound method": (lambda: (Holder().append, []), "argument 'target' changed"),
    "of a function of C": (lambda: (list.append, [], 1), "argument '?(self|1)'? changed"),
    "before it failed": (lambda: (fails_after, []), "argument 'target' changed"),
    "one object for another": (lambda: (swap, [object()]), r"argument 'target' \(at \[0\]\) changed"),
}  # fmt: skip


class Holder:
    def append(self, target: list[str]) -> None:
        target.append("x")


def append_byte(target: bytearray) -> None:
    target.append(1)


NO_CHANGES: dict[str, Callable[[], tuple[Any, ...]]] = {
    "nothing": lambda: (append_to_a_copy, [1]),
    "no data": lambda: (use, Client()),
    "what refuses to be looked at": lambda: (ignore, Hostile.model_construct()),
    "what holds itself": lambda: (ignore, itself()),
    "a generator": lambda: (ignore, (n for n in range(3))),
    "what holds a generator": lambda: (ignore, [iter([1])]),
    "wrong arguments": lambda: (ignore, 1, 2, 3),
}


def append_to_a_copy(target: list[int]) -> list[int]:
    return [*target, 2]


def ignore(target: Any) -> None: ...


def itself() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


def playing(call: Callable[[], tuple[Any, ...]]) -> Any:
    async def w(ctx: Context) -> None:
        fn, *args = call()
        try:
            await ctx.step("s", fn, *args)
        except Exception:  # noqa: BLE001 - what it raises is no matter here
            pass

    return workflow(w)


def warned(definition: Any) -> list[str]:
    """What is said of a run of it, with its clock moved."""

    async def main() -> None:
        async with Environment([definition]) as env:
            await env.runtime.start(definition, run_id="r")
            await env.advance(days=1)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(main())
    return [str(each.message) for each in caught if each.category is ArgumentChanged]


@pytest.mark.parametrize("name", list(CHANGES))
def test_a_step_that_changes_what_it_was_given_is_named(name: str) -> None:
    call, text = CHANGES[name]
    (said,) = warned(playing(call))
    assert re.match(rf"step 's' of run 'r' \(w\): while it ran, .*{text}", said), said
    assert "let it return what is new" in said


@pytest.mark.parametrize("name", list(NO_CHANGES))
def test_a_step_that_changes_nothing_is_not(name: str) -> None:
    assert warned(playing(NO_CHANGES[name])) == []


def test_each_attempt_is_looked_at() -> None:
    @workflow
    async def w(ctx: Context) -> None:
        await ctx.step("s", fails_after, [], retry=Retry(attempts=3, base=1))

    assert len(warned(w)) == 3


@dataclass
class State:
    total: int = 0


@pytest.mark.parametrize("passed", [True, False], ids=["as an argument", "past its arguments"])
def test_a_step_that_changes_the_state_is_named(passed: bool) -> None:
    def add(state: State) -> None:
        state.total += 1

    @workflow(state=State)
    async def w(ctx: Context[State]) -> None:
        ctx.state.total = 1
        await ctx.step("own", int)
        state = ctx.state
        await (ctx.step("s", add, state) if passed else ctx.step("s", lambda: add(state)))

    (said,) = warned(w)
    assert said.startswith("step 's' of run 'r' (w): while it ran, ")
    assert "the state (ctx.state) changed" in said
    assert ("argument 'state' (at .total) and" in said) is passed


def test_a_handler_may_change_its_state_while_steps_run() -> None:
    @workflow(state=State)
    async def w(ctx: Context[State]) -> int:
        async def work(name: str) -> None:
            await ctx.step(name, asyncio.sleep, 0)
            ctx.state.total += 1

        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(work(name))
        return ctx.state.total

    assert warned(w) == []


def test_where_warnings_are_errors_it_reaches_the_test_and_no_run_suffers() -> None:
    definition = playing(lambda: (append, []))

    async def main() -> str:
        async with Environment([definition]) as env:
            await env.runtime.start(definition, run_id="r")
            with pytest.raises(ArgumentChanged, match="argument 'target'"):
                await env.settle()
            return str((await env.runtime.get("r")).status)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert asyncio.run(main()) == "completed"


def test_under_crashes_too() -> None:
    definition = playing(lambda: (append, []))

    async def scenario(env: Environment) -> None:
        await env.result(await env.runtime.start(definition, run_id="r"))

    with pytest.warns(ArgumentChanged, match="argument 'target'"):
        asyncio.run(crash_everywhere(scenario, [definition]))
