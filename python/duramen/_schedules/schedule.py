"""`Schedule`: what is to be started when, as people declare it; and as the store keeps it."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, overload

from typing_extensions import override

from duramen._handlers.inputs import NO_INPUT
from duramen._handlers.workflow import WorkflowDef
from duramen._values.checks import check_choice, check_id, check_tags
from duramen._values.durations import duration_ms, from_ms, instant_ms
from duramen.errors import InvalidArgument

from .times import When, when_of

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable
    from typing import Self

__all__ = ["CatchUp", "Definition", "Overlap", "Schedule", "check_schedule_id", "checked_catch_up"]

I = TypeVar("I")  # noqa: E741 - the input of a workflow, as in `workflow`
InputT_co = TypeVar("InputT_co", covariant=True)

Overlap = Literal["skip", "allow", "buffer_one", "cancel_previous", "terminate_previous"]
OVERLAPS = ("skip", "allow", "buffer_one", "cancel_previous", "terminate_previous")
CatchUp = Literal["none", "latest"] | timedelta

MAX_ID_CHARS = 200
"""So that a run's id has room for the fire time, and a trigger's for its own."""


class InputOf(Protocol[InputT_co]):
    """Makes the input of a run from the fire time (UTC) that it is started for."""

    def __call__(self, at: datetime, /) -> InputT_co | Coroutine[Any, Any, InputT_co]: ...


class Schedule(Generic[I]):
    """Starts a run of a workflow at each of its fire times.

    The run's id is ``{id}:{fire time}``, so a fire time starts one run, whoever finds it due and however
    often.

    Args:
        id: 1 to 200 characters.
        workflow: a workflow, or the name of one.
        when: `cron` or `every`.
        input: what the runs get: a value, or a function of the fire time (also an async one), called when
            the fire time is due. One that raises is called again later; only this schedule waits.
        overlap: what becomes of a fire time while a run of this schedule has not ended: ``skip`` it,
            ``allow`` both, ``buffer_one`` (the first such is started when the run has ended, others are
            skipped), ``cancel_previous`` (the newest is started when the cancelled run has ended), or
            ``terminate_previous`` (it is started at once).
        catch_up: what becomes of fire times that nobody was there for: ``none`` of them is started, the
            ``latest``, or all that are not older than a `timedelta`.
        jitter: seconds or `timedelta`: each run starts later by up to so much, by how much is drawn from the
            schedule's id and the fire time.
        start: the first instant at which it may fire, aware.
        end: the last one.
        enabled: False: it is paused until somebody resumes it.
        tags: given to every run, beside those of the workflow.

    Raises:
        InvalidArgument, InvalidId: something of it makes no sense.

    >>> from duramen import Context, cron, workflow
    >>> @workflow
    ... async def report(ctx: Context, day: str) -> None: ...
    >>> Schedule("report", report, cron("0 7 * * *"), input=lambda at: f"{at:%Y-%m-%d}")
    <Schedule 'report' of 'report', cron('0 7 * * *', tz='UTC')>
    """

    @overload
    def __init__(
        self: Schedule[None],
        id: str,
        workflow: WorkflowDef[None, Any],
        when: When,
        *,
        overlap: Overlap = ...,
        catch_up: CatchUp = ...,
        jitter: timedelta | float = ...,
        start: datetime | None = ...,
        end: datetime | None = ...,
        enabled: bool = ...,
        tags: Iterable[str] = ...,
    ) -> None: ...
    @overload
    def __init__(
        self,
        id: str,
        workflow: WorkflowDef[I, Any],
        when: When,
        *,
        input: I | InputOf[I],
        overlap: Overlap = ...,
        catch_up: CatchUp = ...,
        jitter: timedelta | float = ...,
        start: datetime | None = ...,
        end: datetime | None = ...,
        enabled: bool = ...,
        tags: Iterable[str] = ...,
    ) -> None: ...
    @overload
    def __init__(
        self: Schedule[Any],
        id: str,
        workflow: str,
        when: When,
        *,
        input: Any = ...,
        overlap: Overlap = ...,
        catch_up: CatchUp = ...,
        jitter: timedelta | float = ...,
        start: datetime | None = ...,
        end: datetime | None = ...,
        enabled: bool = ...,
        tags: Iterable[str] = ...,
    ) -> None: ...
    def __init__(
        self,
        id: str,  # noqa: A002
        workflow: Any,
        when: When,
        *,
        input: Any = NO_INPUT,  # noqa: A002
        overlap: Overlap = "skip",
        catch_up: CatchUp = "latest",
        jitter: timedelta | float = 0,
        start: datetime | None = None,
        end: datetime | None = None,
        enabled: bool = True,
        tags: Iterable[str] = (),
    ) -> None:
        self.id = check_schedule_id(id)
        where = f"schedule {id!r}"
        if not isinstance(workflow, str | WorkflowDef):
            raise InvalidArgument(
                f"{where}: {workflow!r} is no workflow: give a function with @workflow, or its name"
            )
        self.workflow: WorkflowDef[Any, Any] | str = workflow
        if not isinstance(when, When):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgument(f"{where}: when is {when!r}: give cron(…) or every.minutes(…)")
        self.when = when
        self.input = input
        self.overlap: Overlap = _checked_overlap(f"{where}: overlap", overlap)
        self.catch_up_ms = checked_catch_up(catch_up, where)
        self.jitter_ms = duration_ms(jitter, f"{where}: jitter")
        self.start_ms = None if start is None else instant_ms(start, f"{where}: start")
        self.end_ms = None if end is None else instant_ms(end, f"{where}: end")
        if self.start_ms is not None and self.end_ms is not None and self.end_ms < self.start_ms:
            raise InvalidArgument(f"{where}: it ends ({end}) before it starts ({start})")
        self.enabled = bool(enabled)
        self.tags = tuple(check_tags(tags))

    @property
    def workflow_name(self) -> str:
        """The name of its workflow."""
        return check_id("workflow name", getattr(self.workflow, "name", self.workflow))

    @override
    def __repr__(self) -> str:
        return f"<Schedule {self.id!r} of {self.workflow_name!r}, {self.when!r}>"

    def definition(self, data: bytes | None, *, declared: bool) -> Definition:
        """As the store keeps it, with the input as a payload; None if it is made by a function."""
        return Definition(
            when=self.when,
            workflow=self.workflow_name,
            input=data,
            overlap=self.overlap,
            catch_up_ms=self.catch_up_ms,
            jitter_ms=self.jitter_ms,
            start_ms=self.start_ms,
            end_ms=self.end_ms,
            enabled=self.enabled,
            tags=self.tags,
            declared=declared,
        )

    def preview(self, n: int = 10, *, after: datetime) -> list[datetime]:
        """Its next fire times behind an instant.

        >>> from datetime import UTC
        >>> from duramen import cron
        >>> nightly = Schedule("nightly", "backup", cron("30 2 * * *", tz="Europe/Zurich"))
        >>> [str(at) for at in nightly.preview(2, after=datetime(2026, 3, 28, tzinfo=UTC))]
        ['2026-03-28 01:30:00+00:00', '2026-03-29 01:00:00+00:00']
        """
        definition = self.definition(None, declared=False)
        return [from_ms(at) for at in definition.preview(n, instant_ms(after, "after"))]


def check_schedule_id(value: Any) -> str:
    """Give `value` back if it can be a schedule's id."""
    found = check_id("schedule's id", value)
    if len(found) > MAX_ID_CHARS:
        raise InvalidArgument(
            f"the schedule's id {found[:40]!r}… has {len(found)} characters: at most {MAX_ID_CHARS} can be"
        )
    return found


def _checked_overlap(what: str, value: Any) -> Overlap:
    chosen: Any = check_choice(what, value, OVERLAPS)
    return chosen


def checked_catch_up(value: Any, where: str) -> int | None:
    """A window in milliseconds; 0 for none, None for the latest."""
    if isinstance(value, timedelta):
        if not value:
            raise InvalidArgument(f"{where}: catch_up is {value!r}: say 'none'")
        return duration_ms(value, f"{where}: catch_up")
    return 0 if check_choice(f"{where}: catch_up", value, ("none", "latest")) == "none" else None


@dataclass(frozen=True, slots=True)
class Definition:
    """A schedule as the store keeps it."""

    when: When
    workflow: str
    input: bytes | None
    """The payload; None if a function of a declaration makes it."""
    overlap: Overlap
    catch_up_ms: int | None
    jitter_ms: int
    start_ms: int | None
    end_ms: int | None
    enabled: bool
    tags: tuple[str, ...]
    declared: bool
    """Whether a runtime declared it, in whose absence it may be stale."""

    def packed(self) -> bytes:
        """For the store. The same definition has the same bytes."""
        data = None if self.input is None else base64.b64encode(self.input).decode()
        kept = {
            "when": self.when.kept(),
            "workflow": self.workflow,
            "input": data,
            "overlap": self.overlap,
            "catch_up": self.catch_up_ms,
            "jitter": self.jitter_ms,
            "start": self.start_ms,
            "end": self.end_ms,
            "enabled": self.enabled,
            "tags": self.tags,
            "declared": self.declared,
        }
        return json.dumps(kept, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def unpacked(cls, data: bytes) -> Self:
        """Read what `packed` gave.

        Raises:
            InvalidArgument: a newer version of Duramen wrote it, or nobody did.
        """
        try:
            kept = json.loads(data)
            given = kept["input"]
            return cls(
                when=when_of(kept["when"]),
                workflow=kept["workflow"],
                input=None if given is None else base64.b64decode(given),
                overlap=_checked_overlap("overlap", kept["overlap"]),
                catch_up_ms=kept["catch_up"],
                jitter_ms=kept["jitter"],
                start_ms=kept["start"],
                end_ms=kept["end"],
                enabled=kept["enabled"],
                tags=tuple(kept["tags"]),
                declared=kept["declared"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidArgument(f"its definition in the store cannot be read: {error!r}") from None

    # -- fire times, within its start and end ----------------------------------------------------------------

    def after(self, at: int) -> int | None:
        """The first fire time after an instant."""
        if self.start_ms is not None:
            at = max(at, self.start_ms - 1)
        found = self.when.after(at)
        return None if found is None or (self.end_ms is not None and found > self.end_ms) else found

    def before(self, at: int) -> int | None:
        """The last fire time before an instant."""
        if self.end_ms is not None:
            at = min(at, self.end_ms + 1)
        found = self.when.before(at)
        return None if found is None or (self.start_ms is not None and found < self.start_ms) else found

    def preview(self, n: int, after: int) -> list[int]:
        """The next `n` fire times after an instant."""
        found: list[int] = []
        at = self.after(after)
        while at is not None and len(found) < n:
            found.append(at)
            at = self.after(at)
        return found
