"""The bench of the stepper's tests."""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from duramen._driving.stepper import StepJob, Stepper

Body = Callable[["Bench"], Coroutine[Any, Any, Any]]
variable = contextvars.ContextVar("variable", default="unset")


class Bench:
    """A stepper with what a test wants to know of its jobs."""

    def __init__(self, max_threads: int | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.stepper = Stepper(self.loop, max_threads=max_threads)
        self.thread = threading.get_ident()

    def start(
        self, fn: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> "tuple[StepJob, asyncio.Future[Any]]":
        outcome: asyncio.Future[Any] = self.loop.create_future()

        def done(result: Any, error: BaseException | None) -> None:
            assert threading.get_ident() == self.thread
            assert not outcome.done(), "done was called twice"
            outcome.set_result(("error", error) if error is not None else ("result", result))

        job = StepJob(fn, args, done=done, **kwargs)
        self.stepper.submit(job)
        return job, outcome

    async def run(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        kind, value = await self.start(fn, *args, **kwargs)[1]
        if kind == "error":
            raise value
        return value
