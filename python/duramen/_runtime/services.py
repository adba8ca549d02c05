"""What a runtime is made of, and how its parts are put together: each gets what it needs and no more."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from duramen._driving.services import Around
from duramen._driving.transactions import Transactions

from .carrying import carried, carried_items
from .checking import Checking
from .comparing import Comparing
from .following import Following
from .forking import Forking
from .lifecycle import Lifecycle
from .messages import Messages
from .pausing import Pausing
from .queries import Queries
from .reading import Reading
from .registry import Registry
from .results import Results
from .running import Running
from .schedules import Schedules, declared_schedules
from .scheduling import Scheduling
from .schemas import Schemas, prepare
from .starting import Starting
from .streams import Streams
from .surroundings import Surroundings
from .sweeping import Sweeping
from .taking import Taking
from .tokens import Tokens
from .updates import Updates
from .versions import Versions
from .views import RunHandle
from .working import Working

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
    from datetime import timedelta

    from duramen.runtime import Runtime

    from .settings import Settings
    from .starting import NewRow

__all__ = ["Services"]

P = ParamSpec("P")
T = TypeVar("T")


class Services:
    """The parts behind one `Runtime`.

    Args:
        runtime: the face, which handles of runs remember.
        workflows: definitions, or where they are to be imported from.
        settings: what the runtime was told.
        surroundings: what it stands in; default: a program.
    """

    def __init__(
        self,
        runtime: Runtime,
        workflows: Iterable[Any],
        settings: Settings,
        surroundings: Surroundings | None = None,
    ) -> None:
        around = Surroundings() if surroundings is None else surroundings
        serializer = settings.serializer
        registry = Registry(workflows)
        transactions = Transactions(
            settings.target,
            settings.database,
            synchronous=settings.synchronous,
            busy_timeout=settings.busy_ms / 1000,
            lease=settings.lease_ms / 1000,
        )
        lifecycle = Lifecycle(settings, registry, around, transactions, partial(prepare, settings))
        self._runtime = runtime
        self.settings = settings
        self.registry = registry
        self.transactions = transactions
        self.lifecycle = lifecycle
        self.schemas = Schemas(settings, lifecycle)
        self.queries = Queries(lifecycle, registry, serializer)
        self.results = Results(lifecycle, registry, serializer, around, self.queries)
        self.following = Following(lifecycle, serializer, self.queries)
        self.streams = Streams(lifecycle, serializer)
        self.taking = Taking(lifecycle, self.queries)
        self.starting = Starting(
            lifecycle, registry, serializer, around, self.taking, transactions, self._handle_of
        )
        self.forking = Forking(
            lifecycle, registry, serializer, around, self.queries, self.taking, self._handle_of
        )
        self.comparing = Comparing(self.queries)
        self.messages = Messages(
            lifecycle, registry, serializer, around, self.queries, self.taking, transactions
        )
        self.reading = Reading(lifecycle, registry, serializer)
        self.tokens = Tokens(lifecycle, registry, serializer, self.reading)
        self.updates = Updates(lifecycle, serializer, around, self.queries, self.taking)
        self.pausing = Pausing(lifecycle, serializer, around, self.queries, self.taking)
        self.running = Running(lifecycle, self.queries, self.starting, self.taking)
        declared = declared_schedules(settings.schedules)
        self.scheduling = Scheduling(
            lifecycle,
            registry,
            serializer,
            around,
            self.starting,
            self.messages,
            declared,
            settings.lease_ms,
        )
        self.schedules = Schedules(
            lifecycle,
            registry,
            serializer,
            around,
            self.starting,
            self.scheduling,
            declared,
            remove_stale=settings.remove_stale_schedules,
        )
        self.sweeping = Sweeping(lifecycle, self.scheduling)
        self.working = Working(lifecycle, self.scheduling)
        self.versions = Versions(lifecycle, registry)
        self.checking = Checking(
            lifecycle, registry, serializer, Around(settings.middleware, settings.step_middleware)
        )

    async def open(self, *, only_look: bool = False) -> None:
        """See `Runtime.open`."""
        await self.lifecycle.open(only_look=only_look)
        if only_look:
            return
        try:
            await self.schedules.declare()
            if self.settings.work is not None:
                self.scheduling.begin()
        except BaseException:
            await self.lifecycle.close()
            raise

    def here(
        self, call: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]:
        """A call of a service, on the loop on which the runtime is open; the caller may stand on another."""
        port = self.lifecycle.port
        if port is None or not port.is_elsewhere():
            return call(*args, **kwargs)
        return carried(port.loop, partial(call, *args, **kwargs))

    def items_here(self, items: AsyncGenerator[T]) -> AsyncGenerator[T]:
        """The same for what is iterated over."""
        port = self.lifecycle.port
        return items if port is None or not port.is_elsewhere() else carried_items(port.loop, items)

    def handle(
        self, run_id: str, workflow: str = "", *, created: bool = False, output_type: Any = None
    ) -> RunHandle[Any]:
        """A handle of a run, which may know how its output is to be read."""

        async def result(timeout: timedelta | float | None) -> Any:
            return await self.here(self.results.result, run_id, timeout, output_type, workflow)

        return RunHandle(self._runtime, run_id, workflow, created=created, result=result)

    def _handle_of(self, row: NewRow, created: bool) -> RunHandle[Any]:
        output = self.registry.types(row[1], row[2])[1]
        return self.handle(row[0], row[1], created=created, output_type=output)
