"""One attempt of a `ctx.transaction`: its function, the run's commit, COMMIT, in one transaction."""

from __future__ import annotations

import asyncio
import concurrent.futures
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING, Any

from duramen._logging import logger
from duramen._stores.databases import (
    connecting,
    connecting_sync,
    is_aborted,
    is_lost_connection,
    is_refused_connection,
    is_rolled_back,
)

from .exits import Trouble, note, recorded
from .transactions import GivenUp, NoTurn
from .units import NotProven, PostgresUnit, RolledBack, SqliteUnit

if TYPE_CHECKING:
    from duramen._bridge import Change

    from .transaction_calls import TransactionCall

__all__ = ["Attempt", "Doubt", "Lost", "Refused"]

_log = logger("duramen")

_SWALLOWED = (
    "a statement of the function's failed before and the function went on, but Postgres takes nothing "
    "more in such a "
    "transaction: let the error out, or put what may fail into a savepoint"
)


class Refused(Exception):
    """The fence refused the run's commit."""


class Doubt(Exception):
    """COMMIT ended in a way that says nothing about what became of it."""


class Lost(Exception):
    """The connection was lost, or could not be had, before COMMIT. Its cause says more.

    Args:
        refused: the server does not take this user, this password, or has no such database.
    """

    def __init__(self, *, refused: bool) -> None:
        super().__init__(refused)
        self.refused = refused


class Attempt:
    """One attempt of a transaction's function: on the event loop, or in a thread."""

    def __init__(self, call: TransactionCall, source: Any) -> None:
        self.call = call
        self.source = source
        self.begun = False
        """It was handed to the stepper."""
        self.entered = False
        """Its code has begun, and sees to its end by itself."""
        self.is_sealed = False
        """The engine has sealed the run's commit with its result."""
        self.committing = False
        self._unit: PostgresUnit | SqliteUnit | None = None
        self._raised: list[BaseException] = []
        """What was raised in the transaction."""
        self._lost_it = False
        """The connection was lost before COMMIT: asked of it before it is given back, and closed."""
        self._until: float | None = None
        self._committed = False
        self._finished = False
        self._overdue: asyncio.TimerHandle | None = None
        """Until the outcome is known nothing of the run goes on: a connection that is silent for a lease
        is given up. What still becomes of its transaction is for the fence to say."""
        self._waiter: Any = None
        self._loop = call.transactions.port.loop

    # -- on the event loop -----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Hand it to the stepper."""
        self.begun = True
        self.call.hand_over(self)

    def want_seal(self, result: Any, waiter: Any) -> None:
        """The function has returned: its result is to be sealed, and the waiter gets the run's commit."""
        call = self.call
        host = call.host
        if call.current is not self or host.closed or waiter.done():
            _fail(waiter, GivenUp())
            return
        try:
            data, value = recorded(host.serializer, result, call.plan.result)
        except (Trouble, KeyboardInterrupt) as out:
            _fail(waiter, out)  # rolled back, and done again
            return
        except BaseException as failure:  # noqa: BLE001 - also what a user's serializer raises
            note(failure, f"the result of transaction {call.op!r} cannot be recorded")
            call.unrecordable = True
            _fail(waiter, failure)
            return
        if not host.run.seal(call.slot, data):
            _fail(waiter, GivenUp())
            return
        if call.job is not None:
            call.job.no_timeout()  # from here on the outcome is the database's to say
        call.value = value
        self._waiter = waiter
        host.services.touched(host)

    def sealed(self, change: Change) -> None:
        """The engine has sealed the run's commit."""
        self.is_sealed = True
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(change)
        self._overdue = self._loop.call_later(
            self.call.transactions.lease, self.call.doubt, self, "no answer"
        )

    def give_up(self) -> None:
        """Nobody waits for the attempt any more."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            _fail(waiter, GivenUp())
        if not self.entered:
            self.finish()
        elif self._unit is not None and not self.committing:
            self._unit.abandon()

    def finish(self) -> None:
        """Its transaction is over, or never begins."""
        if self._overdue is not None:
            self._overdue.cancel()
        if not self._finished:
            self._finished = True
            self._freed()

    def _freed(self) -> None:
        """It holds no write lock any more."""
        if self.source is None:
            self.call.transactions.leave(self)

    # -- async functions -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run an async function in its transaction and commit.

        Raises:
            Refused, Doubt, Lost, GivenUp: see there.
            BaseException: what the function or the database raised; everything was rolled back.
        """
        self.entered = True
        limit = self.call.timeout
        self._until = None if limit is None else self._loop.time() + limit
        try:
            async with AsyncExitStack() as connected:
                async with asyncio.timeout_at(self._until):
                    unit = self._unit = await self._connect(connected)
                try:
                    async with AsyncExitStack() as transaction:
                        await self._work(unit, transaction)
                    self._must_commit()
                    await unit.prove()
                    self._committed = True
                except BaseException as error:
                    self._failed(unit, error)
                    if isinstance(error, Exception) and not self.committing:
                        await unit.look_back()
                    raise
        except BaseException as error:  # noqa: BLE001 - sorted there
            self._judge(error)
        finally:
            self.finish()

    async def _work(self, unit: PostgresUnit | SqliteUnit, transaction: AsyncExitStack) -> None:
        """All that is in the transaction."""
        try:
            async with asyncio.timeout_at(self._until):
                await unit.begin(transaction)
                result = await self._function(unit.connection)
            waiter: asyncio.Future[Change] = self._loop.create_future()
            self.want_seal(result, waiter)
            change = await waiter
            await unit.check()
            if not await unit.record(change):
                raise Refused  # noqa: TRY301 - as an error of the database's, it rolls back
        except BaseException as error:
            self._raised.append(error)
            raise
        self.committing = True

    async def _connect(self, stack: AsyncExitStack) -> PostgresUnit | SqliteUnit:
        transactions = self.call.transactions
        if self.source is None:
            return stack.enter_context(transactions.sqlite(self._freed))
        turn = transactions.turn_on(self.source)
        if turn is not None:
            await turn.take()
            stack.callback(turn.leave)
        return PostgresUnit(
            transactions, self.source, await stack.enter_async_context(connecting(self.source))
        )

    async def _function(self, connection: Any) -> Any:
        return await self.call.plan.call(connection, *self.call.args)

    # -- functions in threads --------------------------------------------------------------------------------

    def run_in_thread(self) -> None:
        """Run a function that is not async in its transaction, in its thread, and commit. As `run`."""
        self.entered = True
        try:
            with ExitStack() as connected:
                unit = self._unit = self._connect_sync(connected)
                try:
                    with ExitStack() as transaction:
                        self._work_sync(unit, transaction)
                    self._must_commit()
                    unit.prove_sync()
                    self._committed = True
                except BaseException as error:
                    self._failed(unit, error)
                    if isinstance(error, Exception) and not self.committing:
                        unit.look_back_sync()
                    raise
        except BaseException as error:  # noqa: BLE001 - sorted there
            self._judge(error)
        finally:
            try:
                self._tell(self.finish)
            except GivenUp:
                pass  # the loop is closed, and the runtime with it

    def _work_sync(self, unit: PostgresUnit | SqliteUnit, transaction: ExitStack) -> None:
        """As `_work`."""
        try:
            unit.begin_sync(transaction, self._on_loop)
            result = self._function_sync(unit.connection)
            waiter: concurrent.futures.Future[Change] = concurrent.futures.Future()
            self._tell(self.want_seal, result, waiter)
            change = self._wait(waiter)
            unit.check_sync()
            if not unit.record_sync(change):
                raise Refused  # noqa: TRY301 - as above
        except BaseException as error:
            self._raised.append(error)
            raise
        self.committing = True

    def _connect_sync(self, stack: ExitStack) -> PostgresUnit | SqliteUnit:
        transactions = self.call.transactions
        if self.source is None:
            return stack.enter_context(transactions.sqlite(self._freed))
        turn = transactions.turn_on(self.source)
        if turn is not None:
            self._on_loop(turn.take())
            stack.callback(self._tell, turn.leave)
        return PostgresUnit(transactions, self.source, stack.enter_context(connecting_sync(self.source)))

    def _function_sync(self, connection: Any) -> Any:
        return self.call.plan.call(connection, *self.call.args)

    def _tell(self, callback: Any, *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # the loop is closed
            raise GivenUp from None

    def _on_loop(self, coroutine: Any) -> Any:
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            raise GivenUp from None
        return self._wait(future)

    def _wait(self, waiter: concurrent.futures.Future[Any]) -> Any:
        """Wait for the event loop, but not for one that is gone: a transaction would stay open."""
        while not concurrent.futures.wait([waiter], timeout=1).done:
            if self._loop.is_closed():
                raise GivenUp
        return waiter.result()

    # -- how it ended ----------------------------------------------------------------------------------------

    def _must_commit(self) -> None:
        if not self.committing:
            # A context manager may swallow what is raised in it (psycopg's `Rollback`, for one).
            raise self._raised[0]

    def _failed(self, unit: PostgresUnit | SqliteUnit, error: BaseException) -> None:
        """Ask the connection what it knows, before it is given back."""
        if not self.committing:
            self._lost_it = unit.was_lost(self._raised[0] if self._raised else error)
        if error not in self._raised:
            unit.cut_if_open()

    def _judge(self, error: BaseException) -> None:
        """Raise an error as what it means: one in COMMIT may say nothing about what became of it."""
        if self._committed:
            # The connection could not be given back, or something like it. The result stands.
            _log.warning("after transaction %r of run %r: %r", self.call.op, self.call.run_id, error)
            return
        overdue = None if self._unit is None else self._unit.overdue()
        if overdue is not None and (isinstance(error, RolledBack) or not self.committing):
            raise overdue from error
        if isinstance(error, RolledBack):
            raise error.__cause__ or error
        if self.committing and not is_rolled_back(error):
            why = str(error) if isinstance(error, NotProven) else f"{type(error).__name__}: {error}"
            raise Doubt(why) from error
        first = self._raised[0] if self._raised else error
        if not self.committing:
            refused = self._unit is None and is_refused_connection(first)
            if refused or self._was_lost(first):
                raise Lost(refused=refused) from first
        if is_aborted(error):
            note(error, _SWALLOWED)
        raise error

    def _was_lost(self, error: BaseException) -> bool:
        if not isinstance(error, Exception):
            return False
        if isinstance(error, NoTurn):
            return False
        if isinstance(error, TimeoutError) and self._until is not None and self._loop.time() >= self._until:
            return False  # its own time is over
        if self._unit is None:
            return is_lost_connection(error)
        return self._lost_it


def _fail(waiter: Any, error: BaseException) -> None:
    if not waiter.done():
        waiter.set_exception(error)
