"""Children of a run: how their ends are waited for, and what becomes of them when their parent ends.

An attached child ends before its parent. A handler that returns (or continues as new) while some are open
waits for them first, as an `asyncio.TaskGroup` would: the first that fails cancels the others and fails the
run. One that raises or is cancelled cancels them and waits until they have cleaned up.
"""

from __future__ import annotations

from asyncio import CancelledError, Future, gather
from json import dumps
from typing import TYPE_CHECKING, Any

from duramen._bridge import Halted
from duramen._values.payloads import child_failure
from duramen.errors import ContinueAsNew, RunEvicted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from duramen._values.serializer import Serializer

    from .host import RunHost

__all__ = ["Child", "with_children"]


class Child:
    """A child that a handler has started, and its end once somebody asked for it."""

    __slots__ = ("_futures", "_payload", "_slot", "_value", "attached", "host", "how", "op", "run_id", "type")

    def __init__(self, host: RunHost, op: str, run_id: str, type: Any, *, attached: bool) -> None:  # noqa: A002
        self.host = host
        self.op = op
        self.run_id = run_id
        self.type = type
        self.attached = attached
        self.how: str | None = None
        """How it ended, as far as the handler knows."""
        self._value: Any = None
        self._payload = b""
        self._slot: int | None = None
        self._futures: list[Future[None]] = []
        if attached:
            host.children[op] = self

    async def result(self) -> Any:
        """Wait for its output.

        Raises:
            ChildFailed: it has not completed.
        """
        await self.wait()
        if self.how == "completed":
            return self._value
        # Made anew for each who asks: an exception that is raised twice has the traceback of both.
        raise child_failure(self.host.serializer, self.op, self.run_id, self.how or "", self._payload)

    async def wait(self) -> None:
        """Wait until it has ended. All who wait share one operation, which ends with the last of them."""
        if self.how is not None:
            return
        host = self.host
        if self._slot is None:
            try:
                slot = host.run.child_end(self.op, self.run_id)
            except Halted as error:
                host.halt()
                await Future(loop=host.loop)  # no exception, for the code may swallow it and ask again
                raise RunEvicted(str(error)) from None
            self._slot = slot
            host.open_wait(slot, self)
        future: Future[None] = Future(loop=host.loop)
        self._futures.append(future)
        try:
            await future
        except BaseException:
            if future in self._futures:
                self._futures.remove(future)
            self._stop_waiting()
            raise

    def _stop_waiting(self) -> None:
        slot = self._slot
        if not self._futures and slot is not None:
            self._slot = None
            self.host.forget(slot)

    def ended(self, serializer: Serializer, how: str, payload: bytes) -> None:
        """Take its end.

        Raises:
            DeserializationError: it cannot be read; nothing has changed.
        """
        value = None
        if how == "completed":
            value = serializer.loads(payload, self.type)
        else:
            child_failure(serializer, self.op, self.run_id, how, payload)
        self.how, self._value, self._payload, self._slot = how, value, payload, None
        self.host.children.pop(self.op, None)
        futures, self._futures = self._futures, []
        for future in futures:
            if not future.done():
                future.set_result(None)

    def cancel(self, reason: str) -> None:
        """Ask it to end. One that has ended does not mind."""
        if self.how is None:
            self.host.run.send_cancel(self.run_id, dumps(reason, ensure_ascii=False).encode())

    async def cancel_and_wait(self) -> None:
        """Cancel it, and wait until it has cleaned up, whoever cancels this meanwhile."""
        self.cancel(self.host.reason or f"run {self.host.run_id!r}, which started it, no longer waits for it")
        await self.wait_anyhow()

    async def wait_anyhow(self) -> None:
        """Wait until it has ended, whoever cancels this meanwhile."""
        while self.how is None:
            try:
                await self.wait()
            except CancelledError:
                if self.host.closed:
                    raise


async def with_children(host: RunHost, ending: Awaitable[Any]) -> Any:
    """Await what a handler returns, and then its attached children."""
    try:
        result = await ending
    except ContinueAsNew:
        if host.children:
            await _wait_for_all(host.children)
        raise
    except (Exception, CancelledError):
        if host.children and not host.closed:
            await _cancel_all(host.children)
        raise
    if host.children:
        await _wait_for_all(host.children)
    return result


async def _cancel_all(children: Mapping[str, Child]) -> None:
    """Cancel them, and wait until all of them have cleaned up."""
    open_ones = list(children.values())
    for child in open_ones:
        child.cancel(child.host.reason or f"run {child.host.run_id!r}, which started it, has ended")
    for child in open_ones:
        await child.wait_anyhow()


async def _wait_for_all(children: Mapping[str, Child]) -> None:
    """Wait until all have completed; when one has not, or this is cancelled, cancel the others."""
    try:
        await gather(*(child.result() for child in children.values()))
    except (Exception, CancelledError):
        await _cancel_all(children)
        raise
