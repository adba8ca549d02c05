"""`ctx.transaction`: steps that run in a transaction of the database that holds the journal.

For the journal it is a step. When its function has returned, the run's commit with its result is *sealed* by
the engine and carried out as the transaction's last statements, fenced like every commit. So result and data
are there together or not at all:

- an error before COMMIT rolls back and is a failed attempt;
- a refused fence rolls back: another process has the run;
- an error in COMMIT after which nobody knows whether it took place drops the run from memory. It is taken up
  again from its journal, which has the result if and only if the transaction took place.
"""

# A call, its attempts and the runtime's part of them are one thing in three classes.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from time import time
from typing import TYPE_CHECKING, Any, cast

from typing_extensions import override

from duramen._handlers.step import current_step, is_async
from duramen._stores.databases import connecting, connecting_sync, driver_of, is_rolled_back
from duramen._values.payloads import dump_failure
from duramen._values.serializer import round_trip
from duramen.errors import (
    DuramenError,
    StoreClosed,
    TransactionsUnsupported,
    UnusableConnection,
    WrongDatabase,
)

from .stepper import StepJob
from .transactions import GivenUp, RolledBack, apply_sqlite
from .waits import StepCall

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Mapping

    from duramen._bridge import Change
    from duramen._handlers.retry import Retry
    from duramen._handlers.step import StepPlan

    from .host import RunHost
    from .transactions import Transactions

__all__ = ["Attempt", "TransactionCall"]

_log = logging.getLogger("duramen")


class _Refused(Exception):
    """The fence refused the run's commit."""


class _Doubt(Exception):
    """COMMIT ended in a way that says nothing about what became of it."""


class TransactionCall(StepCall):
    """A transaction that a handler waits for: over all its attempts."""

    __slots__ = ("current", "database", "transactions", "unrecordable")

    def __init__(
        self,
        host: RunHost,
        slot: int,
        future: Future[Any],
        plan: StepPlan,
        args: tuple[Any, ...],
        retry: Retry | None,
        timeout: float | None,
        meta: Mapping[str, Any] | None,
        database: Any,
    ) -> None:
        super().__init__(host, slot, future, plan, args, retry, timeout, meta)
        self.database = database
        self.transactions: Transactions = cast("Transactions", host.services.transactions)
        self.current: Attempt | None = None
        """The attempt that may still come to something."""
        self.unrecordable = False
        """Its result cannot be a payload: no other attempt will do better."""

    @override
    def start(self, attempt: int) -> None:
        self.attempt = attempt
        self.started = time()
        try:
            if self.host.services.transactions is None:
                raise TransactionsUnsupported("this host")
            source = self.transactions.source_for(self.plan.call, self.database)
        except DuramenError as error:
            self._fail(error)
            return
        self.current = current = Attempt(self, source)
        if source is None:
            self.transactions.enter(current)
        else:
            current.begin()

    def submit(self, attempt: Attempt) -> None:
        """Hand an attempt to the stepper."""
        services = self.host.services
        self.started = time()
        variables = services.context.copy()
        variables.run(current_step.set, self)
        in_thread = not is_async(self.plan.call)
        self.job = job = StepJob(
            attempt.run_in_thread if in_thread else attempt.run,
            done=partial(self._over, attempt),
            # An async function has its timeout inside of its transaction.
            timeout=self.timeout if in_thread else None,
            context_setup=variables,
            may_start=self.host.run.holds_lease,
        )
        services.stepper.submit(job)

    def sealed(self, change: Change) -> None:
        """The engine has sealed the run's commit."""
        if self.current is not None:
            self.current.sealed(change)
        else:
            self.host.run.sealed(False)

    def _over(self, attempt: Attempt, _result: None, error: BaseException | None) -> None:
        """The outcome of an attempt; as `StepCall.done`."""
        if not attempt.entered:
            attempt.finish()
        if self.current is not attempt or self.job is None or self.host.closed:
            return
        self.current = None
        if error is None:
            self.job = None
            self.host.run.sealed(True)
        elif isinstance(error, _Refused):
            self.job = None
            self.transactions.later(self._refused())
        elif isinstance(error, _Doubt):
            self.current = attempt
            self.doubt(attempt, str(error))
        elif isinstance(error, GivenUp):
            self.job = None
        elif self.unrecordable or isinstance(error, UnusableConnection | StoreClosed):
            self.job = None
            self._fail(error)
        else:
            self.done(None, error)

    def doubt(self, attempt: Attempt, why: str) -> None:
        """What became of an attempt is not known: drop the run, for its journal to say."""
        if self.current is not attempt or self.host.closed:
            return
        self.current = self.job = None
        _log.warning(
            "whether transaction %r of run %r took place is not known (%s): its journal knows, and the run "
            "is taken up from there",
            self.op,
            self.run_id,
            why,
        )
        self.host.run.sealed(False)

    def _fail(self, error: BaseException) -> None:
        """A failure that no other attempt can mend."""
        host = self.host
        host.step_failed(self.slot, dump_failure(host.serializer, error, attempts=self.attempt), False)

    async def _refused(self) -> None:
        """The fence refused the commit: another has the run, or it is not the store's database at all."""
        run = self.host.run
        try:
            row = await self.transactions.row(self.run_id)
            owner = self.transactions.port.engine.owner()
        except GivenUp:
            return  # the runtime closes
        if self.host.closed:
            return
        if (
            row is not None
            and row.status == "running"
            and row.owner == owner
            and row.epoch == run.epoch
            and await self.transactions.has_length(self.run_id, run.durable_len())
        ):
            self._fail(WrongDatabase(str(self.transactions.target)))
            return
        _log.warning(
            "transaction %r of run %r was rolled back: the run was taken over while its function ran",
            self.op,
            self.run_id,
        )
        run.sealed(False)

    @override
    def stop(self) -> None:
        attempt, self.current = self.current, None
        if attempt is not None and attempt.committing:
            self.job = None  # a COMMIT that is interrupted leaves nothing but questions
            return
        super().stop()
        if attempt is not None:
            attempt.give_up()


class Attempt:
    """One attempt of a transaction's function: on the event loop, or in a thread."""

    def __init__(self, call: TransactionCall, source: Any) -> None:
        self.call = call
        self.source = source
        self.entered = False
        """Its code has begun, and sees to its end by itself."""
        self.committing = False
        self._committed = False
        self._finished = False
        self._overdue: asyncio.TimerHandle | None = None
        """Until the outcome is known nothing of the run goes on: a connection that is silent for a lease
        is given up. What still becomes of its transaction is for the fence to say."""
        self._waiter: Any = None
        self._loop = call.host.services.stepper._loop

    # -- on the event loop -----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Hand it to the stepper."""
        self.call.submit(self)

    def want_seal(self, result: Any, waiter: Any) -> None:
        """The function has returned: its result is to be sealed, and the waiter gets the run's commit."""
        call = self.call
        host = call.host
        if call.current is not self or host.closed or waiter.done():
            _fail(waiter, GivenUp())
            return
        try:
            data, value = round_trip(host.serializer, result, call.plan.result)
        except Exception as failure:  # noqa: BLE001 - also what a user's serializer raises
            failure.add_note(f"the result of transaction {call.op!r} cannot be recorded")
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

    def finish(self) -> None:
        """Its transaction is over, or never begins."""
        if self._overdue is not None:
            self._overdue.cancel()
        if not self._finished:
            self._finished = True
            if self.source is None:
                self.call.transactions.leave(self)

    # -- async functions -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run an async function in its transaction and commit.

        Raises:
            _Refused, _Doubt, GivenUp: see there.
            BaseException: what the function or the database raised; everything was rolled back.
        """
        self.entered = True
        raised: list[BaseException] = []
        limit = self.call.timeout
        until = None if limit is None else self._loop.time() + limit
        try:
            async with AsyncExitStack() as connected:
                async with asyncio.timeout_at(until):
                    connection = await self._connect(connected)
                async with AsyncExitStack() as transaction:
                    async with asyncio.timeout_at(until):
                        result = await self._function(connection, transaction, raised)
                    waiter: asyncio.Future[Change] = self._loop.create_future()
                    self.want_seal(result, waiter)
                    await self._record(connection, await waiter)
                    self.committing = True
                self._committed = self.committing
        except BaseException as error:  # noqa: BLE001 - sorted there
            self._judge(error)
        finally:
            self.finish()
        self._check(raised)

    async def _connect(self, stack: AsyncExitStack) -> Any:
        transactions = self.call.transactions
        if self.source is None:
            return stack.enter_context(transactions.sqlite())
        lock = transactions.lock_of(self.source)
        if lock is not None:
            await stack.enter_async_context(lock)
        return await stack.enter_async_context(connecting(self.source))

    async def _function(self, connection: Any, stack: AsyncExitStack, raised: list[BaseException]) -> Any:
        transactions = self.call.transactions
        try:
            if self.source is None:
                await stack.enter_async_context(transactions.on_sqlite(connection))
            else:
                driver = driver_of(connection)
                await stack.enter_async_context(driver.transaction(connection))
                if not transactions.is_known(self.source):
                    await transactions.verify(driver, connection, self.source)
            return await self.call.plan.call(connection, *self.call.args)
        except BaseException as error:
            raised.append(error)
            raise

    async def _record(self, connection: Any, change: Change) -> None:
        if self.source is None:
            answer = apply_sqlite(connection, change)
        else:
            answer = await self.call.transactions.run(driver_of(connection), connection, change)
        if answer is None:
            raise _Refused

    # -- functions in threads --------------------------------------------------------------------------------

    def run_in_thread(self) -> None:
        """Run a function that is not async in its transaction, in its thread, and commit. As `run`."""
        self.entered = True
        raised: list[BaseException] = []
        try:
            with ExitStack() as connected:
                connection = self._connect_sync(connected)
                with ExitStack() as transaction:
                    result = self._function_sync(connection, transaction, raised)
                    waiter: concurrent.futures.Future[Change] = concurrent.futures.Future()
                    self._tell(self.want_seal, result, waiter)
                    self._record_sync(connection, self._wait(waiter))
                    self.committing = True
                self._committed = self.committing
        except BaseException as error:  # noqa: BLE001 - sorted there
            self._judge(error)
        finally:
            try:
                self._tell(self.finish)
            except GivenUp:
                pass  # the loop is closed, and the runtime with it
        self._check(raised)

    def _connect_sync(self, stack: ExitStack) -> Any:
        transactions = self.call.transactions
        if self.source is None:
            return stack.enter_context(transactions.sqlite())
        lock = transactions.lock_of(self.source)
        if lock is not None:
            self._on_loop(lock.acquire())
            stack.callback(self._tell, lock.release)
        return stack.enter_context(connecting_sync(self.source))

    def _function_sync(self, connection: Any, stack: ExitStack, raised: list[BaseException]) -> Any:
        transactions = self.call.transactions
        try:
            if self.source is None:
                stack.enter_context(transactions.on_sqlite(connection))
            else:
                driver = driver_of(connection)
                stack.enter_context(driver.transaction(connection))
                if not transactions.is_known(self.source):
                    identity = self._on_loop(transactions.identity())
                    transactions.verify_sync(driver, connection, self.source, identity)
            return self.call.plan.call(connection, *self.call.args)
        except BaseException as error:
            raised.append(error)
            raise

    def _record_sync(self, connection: Any, change: Change) -> None:
        if self.source is None:
            answer = apply_sqlite(connection, change)
        else:
            answer = self.call.transactions.run_sync(driver_of(connection), connection, change)
        if answer is None:
            raise _Refused

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

    def _judge(self, error: BaseException) -> None:
        """Raise an error as what it means: one in COMMIT may say nothing about what became of it."""
        if self._committed:
            # The connection could not be given back, or something like it. The result stands.
            _log.warning("after transaction %r of run %r: %r", self.call.op, self.call.run_id, error)
            return
        if isinstance(error, RolledBack):
            raise error.__cause__ or error
        if self.committing and not is_rolled_back(error):
            raise _Doubt(f"{type(error).__name__}: {error}") from error
        raise error

    def _check(self, raised: list[BaseException]) -> None:
        """A context manager may swallow what is raised in it (psycopg's `Rollback`, for one)."""
        if not self._committed:
            raise raised[0] if raised else GivenUp


def _fail(waiter: Any, error: BaseException) -> None:
    if not waiter.done():
        waiter.set_exception(error)
