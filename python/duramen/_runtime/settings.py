"""What a runtime was told when it was made: checked then, so that nothing of it fails later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from duramen._handlers.context import Context
from duramen._handlers.middleware import Middleware, checked
from duramen._handlers.step_context import StepContext
from duramen._stores.url import Target, parse_target
from duramen._values.checks import check_choice, check_count, check_identifier, check_tables, new_owner
from duramen._values.durations import duration_ms
from duramen._values.serializer import JsonSerializer, Serializer
from duramen.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta
    from typing import Self

    from duramen.store import Store

__all__ = ["Settings", "Work", "WorkOptions"]


class WorkOptions(TypedDict, total=False):
    """How a runtime works that takes up whatever is due; `Runtime.work` says what they mean."""

    concurrency: int
    poll_min: timedelta | float
    poll_max: timedelta | float
    drain: timedelta | float


@dataclass(frozen=True, slots=True)
class Work:
    """The same, checked."""

    concurrency: int
    poll_min_ms: int
    poll_max_ms: int
    drain: float
    """Seconds."""

    @classmethod
    def checked(
        cls,
        *,
        concurrency: int = 100,
        poll_min: timedelta | float = 0.02,
        poll_max: timedelta | float = 1,
        drain: timedelta | float = 25,
    ) -> Self:
        """Make it of what a caller gave.

        Raises:
            InvalidArgument: an argument makes no sense.
        """
        check_count("concurrency", concurrency, most=100_000)
        least, most = duration_ms(poll_min, "poll_min"), duration_ms(poll_max, "poll_max")
        if not 1 <= least <= most:
            raise InvalidArgument(
                f"poll_min is {poll_min!r} and poll_max {poll_max!r}: 0 < poll_min <= poll_max"
            )
        return cls(concurrency, least, most, duration_ms(drain, "drain") / 1000)

    @property
    def for_engine(self) -> tuple[int, int, int]:
        """What the engine has to know of it."""
        return self.concurrency, self.poll_min_ms, self.poll_max_ms


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of a `Runtime`; its docstring says what they mean."""

    target: Target
    serializer: Serializer
    lease_ms: int
    owner_label: str | None
    warm: int
    max_threads: int | None
    processes: int | None
    migrate: bool
    synchronous: str
    busy_ms: int
    postgres: Mapping[str, Any]
    shutdown_timeout: float
    """Seconds."""
    watchdog: float
    """Seconds."""
    database: Any
    middleware: tuple[Middleware[Any], ...]
    step_middleware: tuple[Middleware[Any], ...]
    schedules: Iterable[Any]
    remove_stale_schedules: bool
    work: Work | None
    """How it works from its opening to its end; None: it does not by itself."""

    @classmethod
    def checked(
        cls,
        url: str | Store,
        *,
        serializer: Serializer | None = None,
        lease: timedelta | float = 30,
        owner: str | None = None,
        warm: int = 1000,
        max_threads: int | None = None,
        processes: int | None = None,
        migrate: bool | None = None,
        synchronous: str = "full",
        busy_timeout: timedelta | float = 5,
        schema: str | None = None,
        tables: Mapping[str, str] | None = None,
        pool_size: int | None = None,
        statement_cache: str | None = None,
        shutdown_timeout: timedelta | float = 5,
        watchdog: timedelta | float = 1,
        database: Any = None,
        middleware: Sequence[Middleware[Any]] = (),
        step_middleware: Sequence[Middleware[Any]] = (),
        schedules: Iterable[Any] = (),
        stale_schedules: str = "keep",
        work: bool | WorkOptions = False,
    ) -> Self:
        """Make them of what a caller gave.

        Raises:
            InvalidArgument: an argument makes no sense.
        """
        try:
            target = parse_target(url)
        finally:
            del url  # as in `Runtime`
        lease_ms = duration_ms(lease, "lease")
        if not 1000 <= lease_ms <= 86_400_000:
            raise InvalidArgument(f"lease is {lease!r}: it must be from 1 second to 1 day")
        new_owner(owner)  # refuses a bad one here, not when it opens
        return cls(
            target=target,
            serializer=JsonSerializer() if serializer is None else serializer,
            lease_ms=lease_ms,
            owner_label=owner,
            warm=check_count("warm", warm, least=0),
            max_threads=None if max_threads is None else check_count("max_threads", max_threads, most=10_000),
            processes=None if processes is None else check_count("processes", processes, most=1000),
            migrate=target.migrates_itself if migrate is None else bool(migrate),
            synchronous=check_choice("synchronous", synchronous, ("full", "normal")),
            busy_ms=duration_ms(busy_timeout, "busy_timeout"),
            postgres=_postgres_options(
                target, schema=schema, tables=tables, pool_size=pool_size, statement_cache=statement_cache
            ),
            shutdown_timeout=duration_ms(shutdown_timeout, "shutdown_timeout") / 1000,
            watchdog=duration_ms(watchdog, "watchdog") / 1000,
            database=database,
            middleware=checked(middleware, Context, "middleware"),
            step_middleware=checked(step_middleware, StepContext, "step_middleware"),
            schedules=schedules,
            remove_stale_schedules=check_choice("stale_schedules", stale_schedules, ("keep", "remove"))
            == "remove",
            work=_work(work),
        )

    def store_options(self, *, migrate: bool) -> dict[str, Any]:
        """What a store is opened with."""
        return {
            "migrate": migrate,
            "synchronous": self.synchronous,
            "busy_timeout": self.busy_ms,
            **self.postgres,
        }


def _work(given: bool | WorkOptions) -> Work | None:
    if isinstance(given, bool):
        return Work.checked() if given else None
    names = WorkOptions.__annotations__
    if not isinstance(given, dict) or not set(given) <= names.keys():  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidArgument(f"work is {given!r}: give True, False, or a dict of {', '.join(names)}")
    return Work.checked(**given)


def _postgres_options(target: Target, **given: Any) -> dict[str, Any]:
    """What the URL says, and over it what the caller says."""
    options = {name: value for name, value in given.items() if value is not None}
    if options and target.scheme != "postgres":
        raise InvalidArgument(f"{next(iter(options))}= is for Postgres; the store is {target}")
    options = {**target.options, **options}
    if "pool_size" in options:
        check_count("pool_size", options["pool_size"], most=64)
    for name, choices in (
        ("statement_cache", ("named", "off")),
        ("flavour", ("plain", "routed")),
        ("isolation", ("read_committed", "repeatable_read", "serializable")),
    ):
        if name in options:
            check_choice(name, options[name], choices)
    if "schema" in options:
        check_identifier("schema", options["schema"])
    if "tables" in options:
        options["tables"] = check_tables(options["tables"])
    return options
