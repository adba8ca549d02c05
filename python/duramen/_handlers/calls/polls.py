"""Looking again and again, as one operation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from typing_extensions import TypeVarTuple, Unpack

from duramen._bridge import CHECKPOINT_PAUSES, Halted, InvalidIdError
from duramen._handlers.callables import is_async_callable
from duramen._handlers.options import pauses_run
from duramen._handlers.retry import check_retry
from duramen._values.durations import duration_ms
from duramen.errors import InvalidArgument

from .base import Calls
from .steps import bad_id, new_plan

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import timedelta

    from duramen._handlers.options import OnExhausted
    from duramen._handlers.retry import Retry

__all__ = ["PollCalls"]

Ts = TypeVarTuple("Ts")
R = TypeVar("R")

_LONGEST = 100 * 365 * 86_400_000
"""Milliseconds of the longest pause, where nobody names another."""


class PollCalls(Calls):
    """See `Context`."""

    __slots__ = ()

    @overload
    async def poll(
        self,
        id: str,
        fn: Callable[[Unpack[Ts]], Awaitable[R]],
        /,
        *args: *Ts,
        every: timedelta | float,
        until: Callable[[R], object] | None = None,
        backoff: float = 1.0,
        cap: timedelta | float | None = None,
        timeout: timedelta | float | None = None,
        retry: Retry | None = None,
        meta: Mapping[str, Any] | None = None,
        on_exhausted: OnExhausted | None = None,
    ) -> R: ...
    @overload
    async def poll(
        self,
        id: str,
        fn: Callable[[Unpack[Ts]], R],
        /,
        *args: *Ts,
        every: timedelta | float,
        until: Callable[[R], object] | None = None,
        backoff: float = 1.0,
        cap: timedelta | float | None = None,
        timeout: timedelta | float | None = None,
        retry: Retry | None = None,
        meta: Mapping[str, Any] | None = None,
        on_exhausted: OnExhausted | None = None,
    ) -> R: ...
    async def poll(
        self,
        id: str,  # noqa: A002
        fn: Callable[..., Any],
        /,
        *args: Any,
        every: timedelta | float,
        until: Callable[[Any], object] | None = None,
        backoff: float = 1.0,
        cap: timedelta | float | None = None,
        timeout: timedelta | float | None = None,
        retry: Retry | None = None,
        meta: Mapping[str, Any] | None = None,
        on_exhausted: OnExhausted | None = None,
    ) -> Any:
        """Call `fn(*args)` again and again until its result is what is looked for, and give that.

        It is one operation however often it looks: a look that finds nothing is not recorded, and a run that
        waits for its next look holds no worker. When it looks follows from when it was asked for; a run that
        is woken by something else in between may look once more than that.

        Args:
            id: as in `step`.
            fn: as in `step`; it should do nothing but look.
            *args: its arguments. They are not recorded.
            every: seconds or `timedelta` between two looks.
            until: whether a result is what is looked for. Default: whether it is true.
            backoff: how many times as long as the one before each pause is, from 1 up.
            cap: the longest pause. Default: no limit, if there is a `backoff`.
            timeout: gives up after so long, with a last look at the end. Default: never.
            retry: for what a look raises, anew for each look. Default: as in `step`.
            meta: as in `step`.
            on_exhausted: as in `step`.

        Raises:
            TimeoutError: it was not there in time.
            StepFailed: a look failed for good, or `until` did.
            InvalidId, InvalidArgument, WorkflowDefinitionError, NotADurableContext: as in `step`.
        """
        self._check("ctx.poll")
        host = self._host
        plan = new_plan("poll", id, fn)
        if until is not None and (not callable(until) or is_async_callable(until)):
            raise InvalidArgument(f"until is {until!r}: give a function of the result that is not async")
        rule = (plan.retry or host.retry) if retry is None else check_retry(retry)
        pauses = plan.pauses_run if on_exhausted is None else pauses_run(on_exhausted)
        how = CHECKPOINT_PAUSES if (host.pauses_run if pauses is None else pauses) else 0
        looks = _looks(every, backoff, cap, timeout)
        try:
            found = self._run.poll(id, None if rule is None else rule.wire, how, looks, self._loop.idle)
        except (Halted, InvalidIdError) as error:
            await self._failed(error)
        except (TypeError, UnicodeEncodeError):
            raise bad_id("poll", id) from None
        if isinstance(found, tuple):
            return await self._recorded(plan, found)
        condition = bool if until is None else until
        return await host.await_step(found, plan, args, rule, plan.timeout, meta, until=condition)


def _looks(
    every: timedelta | float,
    backoff: float,
    cap: timedelta | float | None,
    timeout: timedelta | float | None,
) -> tuple[int, int, int, int | None]:
    """As the engine wants it: the first pause, its growth in thousandths, the longest one, the end.

    >>> _looks(5, 1.5, 60, None)
    (5000, 1500, 60000, None)
    >>> _looks(0, 1, None, None)
    Traceback (most recent call last):
    duramen.errors.InvalidArgument: every is 0: give the seconds between two looks
    """
    pause = duration_ms(every, "every")
    if not pause:
        raise InvalidArgument(f"every is {every!r}: give the seconds between two looks")
    number: Any = backoff
    if isinstance(number, bool) or not isinstance(number, int | float) or not 1 <= number <= 1000:
        raise InvalidArgument(f"backoff is {backoff!r}: give a number from 1 (equal pauses) to 1000")
    most = _LONGEST if cap is None else duration_ms(cap, "cap")
    if most < pause:
        raise InvalidArgument(f"cap ({most / 1000:g} s) is shorter than every ({pause / 1000:g} s)")
    end = None if timeout is None else duration_ms(timeout, "timeout")
    return pause, round(backoff * 1000), most, end
