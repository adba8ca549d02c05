"""Checks of what decorators are given beside a function; each says which definition it is about."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from duramen._values.checks import check_event_name, check_id, check_tags
from duramen._values.durations import duration_ms
from duramen._values.serializer import check_type
from duramen.errors import InvalidArgument, SignalRefused, WorkflowDefinitionError

from .retry import Retry, check_retry

if TYPE_CHECKING:
    from collections.abc import Generator

OnExhausted = Literal["fail", "pause"]
"""What becomes of a step that fails for good: it raises in the handler, or its run is paused."""

__all__ = [
    "OnExhausted",
    "checked_events",
    "checked_name",
    "checked_on_exhausted",
    "checked_retry",
    "checked_tags",
    "checked_timeout",
    "checked_version",
    "defining",
    "pauses_run",
    "place",
]


def place(kind: str, name: Any, fallback: Any) -> str:
    """How messages call a definition.

    >>> place("step", None, print)
    "step 'print'"
    """
    shown = name if name is not None else getattr(fallback, "__name__", fallback)
    text = repr(shown)
    return f"{kind} {text if len(text) <= 80 else text[:80] + '…'}"


@contextmanager
def defining(where: str) -> Generator[None]:
    """Say of what is wrong with an argument which definition it is about."""
    try:
        yield
    except (InvalidArgument, SignalRefused) as error:
        raise WorkflowDefinitionError(f"{where}: {error}") from None


def checked_name(name: Any, where: str, *, of_step: bool = False) -> str:
    """Give back a name that a store can keep; that of a step is an operation's id too."""
    if not name and name != "":
        raise WorkflowDefinitionError(f"{where}: it has no name of its own: give it one, with name='…'")
    with defining(where):
        check_id("name", name)
    if of_step and "#" in name:
        raise WorkflowDefinitionError(
            f"{where}: '#' marks repeated ids (#2, #3 …): give a name without it, with name='…'"
        )
    return name


def checked_version(version: Any, where: str) -> str:
    """Give back a version that a store can keep."""
    if isinstance(version, int | float) and not isinstance(version, bool):
        raise WorkflowDefinitionError(
            f"{where}: the version is {version!r}: give a text, version='{version}'"
        )
    with defining(where):
        return check_id("version", version)


def checked_retry(retry: Any, where: str) -> Retry | None:
    """Give back a rule; None stays None, the default."""
    with defining(where):
        return None if retry is None else check_retry(retry)


def checked_on_exhausted(on_exhausted: Any, where: str) -> bool | None:
    """Whether a step that fails for good pauses its run; None stays None, the default."""
    with defining(where):
        return None if on_exhausted is None else pauses_run(on_exhausted)


def pauses_run(on_exhausted: Any) -> bool:
    """Whether a step that fails for good pauses its run, instead of failing in its handler.

    >>> pauses_run("stop")
    Traceback (most recent call last):
    duramen.errors.InvalidArgument: on_exhausted is 'stop': 'fail' or 'pause'
    """
    if on_exhausted not in {"fail", "pause"}:
        raise InvalidArgument(f"on_exhausted is {on_exhausted!r}: 'fail' or 'pause'")
    return on_exhausted == "pause"


def checked_timeout(timeout: Any, where: str, option: str = "timeout") -> int | None:
    """Give a time limit in milliseconds; None is no limit."""
    if timeout is None:
        return None
    with defining(where):
        milliseconds = duration_ms(timeout, option)
    if milliseconds == 0:
        raise WorkflowDefinitionError(
            f"{where}: {option} is 0: give more, or leave it out (None) for no limit"
        )
    return milliseconds


def checked_tags(tags: Any, where: str) -> tuple[str, ...]:
    """Give tags without repeats."""
    with defining(where):
        return tuple(check_tags(tags))


def checked_events(events: Any, where: str) -> dict[str, Any]:
    """Give types of events by name, each of them storable."""
    if events is None:
        return {}
    try:
        found: dict[str, Any] = dict(events)
    except (TypeError, ValueError):
        raise WorkflowDefinitionError(
            f"{where}: events is {events!r}: give their types by name, events={{'paid': Payment}}"
        ) from None
    for event, annotation in found.items():
        with defining(where):
            try:
                check_event_name(event)
            except SignalRefused:
                raise InvalidArgument(
                    f"event names beginning with '__' are reserved: give {event!r} another name"
                ) from None
        check_type(annotation, f"event {event!r} of {where}")
    return found
