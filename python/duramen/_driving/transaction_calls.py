"""`ctx.transaction`: steps that run in a transaction of the database that holds the journal.

For the journal it is a step. When its function has returned, the run's commit with its result is *sealed* by
the engine and carried out as the transaction's last statements, fenced like every commit. So result and data
are there together or not at all:

- an error before COMMIT rolls back and is a failed attempt;
- a refused fence rolls back: another process has the run;
- an error in COMMIT after which nobody knows whether it took place drops the run from memory. It is taken up
  again from its journal, which has the result if and only if the transaction took place;
- a connection that is lost before COMMIT costs time, not an attempt: the function begins anew.
"""

from __future__ import annotations

from functools import partial
from time import time
from typing import TYPE_CHECKING, Any, cast

from typing_extensions import override

from duramen._handlers.step import is_async
from duramen._logging import logger
from duramen.errors import (
    DuramenError,
    NotADurableContext,
    StoreClosed,
    TransactionsUnsupported,
    UnusableConnection,
    WrongDatabase,
)

from .exits import Trouble
from .stepper import StepJob
from .transaction_attempts import Attempt, Doubt, Lost, Refused
from .transactions import GivenUp
from .waits import StepCall

if TYPE_CHECKING:
    from asyncio import Future, TimerHandle
    from collections.abc import Awaitable, Mapping

    from duramen._bridge import Change
    from duramen._handlers.retry import Retry
    from duramen._handlers.step import StepPlan
    from duramen._handlers.step_context import StepContext

    from .host import RunHost
    from .transactions import Transactions

__all__ = ["TransactionCall"]

_log = logger("duramen")


class TransactionCall(StepCall):
    """A transaction that a handler waits for: over all its attempts."""

    __slots__ = ("again", "current", "database", "transactions", "unrecordable")

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
        self.again: TimerHandle | None = None
        """The attempt begins anew then: it has lost its connection."""
        self.unrecordable = False
        """Its result cannot be a payload: no other attempt will do better."""

    @override
    def start(self, attempt: int) -> None:
        self.attempt = attempt
        self.again = None
        self.started = time()
        try:
            if self.host.services.transactions is None:
                raise TransactionsUnsupported("this host")
            source = self.transactions.source_for(self.plan.call, self.database)
        except DuramenError as error:
            self.failed(error, final=True)
            return
        self.current = current = Attempt(self, source)
        if source is None:
            self.transactions.enter(current)
        else:
            current.begin()

    def hand_over(self, attempt: Attempt) -> None:
        """Hand an attempt to the stepper."""
        services = self.host.services
        self.started = time()
        in_thread = not is_async(self.plan.call)
        now = self.host.step_context(self)
        self.job = job = StepJob(
            attempt.run_in_thread if in_thread else attempt.run,
            done=partial(self._over, attempt),
            # An async function has its timeout inside of its transaction.
            timeout=self.timeout if in_thread else None,
            context_setup=self.entered(now),
            may_start=self.host.run.holds_lease,
            on_cancel=now.end,
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
        if isinstance(error, Lost):
            self._lost(attempt, error)
            return
        self.transactions.settled(self.run_id, self.op, self.attempt)
        if error is None:
            self.job = None
            self.host.run.sealed(True)
        elif isinstance(error, Refused):
            self.job = None
            self.transactions.later(self._refused())
        elif isinstance(error, Doubt):
            self.current = attempt
            self.doubt(attempt, str(error))
        elif isinstance(error, GivenUp):
            self.job = None
        elif isinstance(error, Trouble):
            self.job = None
            self.host.wait_out(error, self._again)
        elif self.unrecordable or isinstance(error, UnusableConnection | StoreClosed):
            self.job = None
            self.failed(error, final=True)
        else:
            attempt.give_up()  # a thread may be at it still, after its time
            self.done(None, error)

    def _again(self) -> None:
        """What was out may be back: the attempt that was rolled back for it is made again."""
        if not self.host.closed and not self.stopped:
            self.start(self.attempt)

    def _lost(self, attempt: Attempt, lost: Lost) -> None:
        """The connection was lost before COMMIT. That costs time: the function begins anew."""
        transactions, key = self.transactions, (self.run_id, self.op, self.attempt)
        first, pause = transactions.is_first_loss(*key), transactions.pause_before(*key, refused=lost.refused)
        if pause is None:
            transactions.settled(*key)
            self.done(None, lost.__cause__)
            return
        if first:
            _log.warning(
                "transaction %r of run %r had no connection, or lost it, before anything was committed "
                "(%r): it "
                "begins anew",
                self.op,
                self.run_id,
                lost.__cause__,
            )
        self.job = None
        if attempt.is_sealed:
            # Its result has a place in the journal that no other may take: the run begins anew from there.
            self.host.run.sealed(False)
        else:
            self.again = transactions.port.loop.call_later(pause, self._again)

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
            self.failed(WrongDatabase(str(self.transactions.target)), final=True)
            return
        _log.warning(
            "transaction %r of run %r was rolled back: the run was taken over while its function ran",
            self.op,
            self.run_id,
        )
        run.sealed(False)

    @override
    def write(
        self, attempt: StepContext, stream: str, keep: int | None, item: Any, annotation: Any, /
    ) -> Awaitable[None]:
        # Its transaction may hold the lock that the item would need, and would wait for the item.
        raise NotADurableContext(
            f"transaction {self.op!r} wrote to the stream {stream!r}: nobody could read it before the "
            "transaction's end; write to the stream in the handler, or in a step"
        )

    @override
    def stop(self) -> None:
        attempt, self.current = self.current, None
        if self.again is not None:
            self.again.cancel()
        if attempt is not None and attempt.committing:
            self.job = None  # a COMMIT that is interrupted leaves nothing but questions
            return
        super().stop()
        if attempt is not None:
            attempt.give_up()
