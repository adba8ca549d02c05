"""Two places where asyncio's own functions need help from the loop. Both look at the caller's frame.

`asyncio.as_completed` puts what it is given into a set before it makes tasks of it. Bare coroutines iterate
in the order of their addresses there, which differs from process to process, so a handler would ask for its
operations in another order on replay. `ordered_as_completed` makes the tasks in the order of the list
instead.

`asyncio.gather` and `asyncio.wait_for`, in a `finally` block of a handler that is being dropped from memory,
get `RunEvicted` from the loop and leave behind coroutines that the interpreter would warn of.
`close_passed_coroutines` closes them.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, cast

from duramen.errors import NotDurableError

from .insides import AS_COMPLETED, WRAPS_AWAITABLE, current_frame

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable
    from types import CodeType, FrameType

    from .loop import RunLoop

_DEPTH = 5
"""How many frames lie at most between the loop and the function that is looked for."""


def _caller(codes: Iterable[CodeType]) -> FrameType | None:
    frame: FrameType | None = current_frame(2)
    for _ in range(_DEPTH):
        if frame is None or frame.f_code in codes:
            return frame
        frame = frame.f_back
    return None


def ordered_as_completed(loop: RunLoop, coro: Any) -> asyncio.Task[Any] | None:
    """The task for `coro` if `asyncio.as_completed` asks for it, made in the order of its argument.

    Returns:
        None if somebody else asks.

    Raises:
        NotDurableError: the argument has no order (a set, or a generator that is used up by now).
    """
    frame = _caller(AS_COMPLETED)
    if frame is None:
        return None
    key = _original(coro)
    premade = loop.premade
    if id(key) not in premade:
        given: Any = frame.f_locals[AS_COMPLETED[frame.f_code]]
        if not isinstance(given, set | frozenset):
            for each in given:
                if id(each) not in premade and not asyncio.isfuture(each):
                    body = each if inspect.iscoroutine(each) else _await(each)
                    # The thing itself is kept beside its task, or its address could be given to another.
                    premade[id(each)] = (each, loop.new_task(body))
    _, task = premade.pop(id(key), (None, None))
    if task is None:
        coro.close()
        raise NotDurableError(
            "asyncio.as_completed got coroutines in a set or from a generator expression, whose order "
            "it does not keep, so a replay could run them in another: pass a list, or tasks from create_task"
        )
    if key is not coro:
        coro.close()  # asyncio's wrapper; ours stands in its place
    return task


async def _await(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _original(coro: Any) -> Any:
    """What was given to `ensure_future`: `coro`, or the awaitable inside of asyncio's wrapper coroutine."""
    frame: FrameType | None = getattr(coro, "cr_frame", None) or getattr(coro, "gi_frame", None)
    if frame is not None and frame.f_code.co_name == WRAPS_AWAITABLE and "awaitable" in frame.f_locals:
        return frame.f_locals["awaitable"]
    return coro


def close_passed_coroutines() -> None:
    """Close the coroutines that were passed to functions of asyncio which the loop is about to refuse."""
    frame: FrameType | None = current_frame(2)
    for _ in range(_DEPTH):
        if frame is None:
            return
        if str(frame.f_globals.get("__name__")).startswith("asyncio."):
            for value in list(frame.f_locals.values()):
                passed = _members(value)
                for each in passed:
                    if inspect.iscoroutine(each) and inspect.getcoroutinestate(each) == inspect.CORO_CREATED:
                        each.close()
        frame = frame.f_back


def _members(value: Any) -> list[Any]:
    return list(cast("list[Any]", value)) if isinstance(value, tuple | list | set) else [value]
