"""What the log tells of a run's failures: attempts of steps, runs that have failed, runs that are stuck.

Each is told once, when it happens: replays pass none of these places. The records have no payloads, but
the texts of exceptions, each on one line and cut where it gets long; what else a terminal would obey in them
is left to whoever formats the records.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from duramen._logging import logger

from .exits import name_of, text_of

if TYPE_CHECKING:
    from asyncio import Task
    from collections.abc import Sequence

    from duramen._bridge import Run
    from duramen._logging import CarefulLogger

__all__ = ["attempt_failed", "line_of", "run_failed", "run_stuck", "warn_of_leaks", "warn_of_swallowing"]

_log = logger("duramen.run")

_LONGEST = 1000
"""Characters of an exception's text."""


def attempt_failed(
    run: Run, op: str, attempt: int, attempts: int, error: BaseException, pause_ms: int | None
) -> None:
    """Tell that an attempt of a step has failed, and whether another one follows.

    Args:
        run: the step's run.
        op: the step's id in it.
        attempt: its number, from 1.
        attempts: how many there are at the most.
        error: what was raised.
        pause_ms: milliseconds until the next attempt; None: there is none.
    """
    if not _log.isEnabledFor(logging.WARNING):
        return
    if pause_ms is not None:
        then = f"it is tried again in {pause_ms / 1000:g} s"
    elif attempt < attempts:
        then = "it is not tried again"
    else:
        then = "no attempt is left"
    _tell(
        logging.WARNING,
        run,
        error,
        "step %r of run %r (%s %s) failed in attempt %d of %d: %s; %s",
        (op, run.run_id, run.workflow, run.version, attempt, attempts, line_of(error), then),
        step=op,
        attempt=attempt,
    )


def run_failed(run: Run, error: BaseException | None) -> None:
    """Tell that a run has failed, as is now recorded."""
    why = "its failure was recorded before" if error is None else line_of(error)
    _tell(
        logging.ERROR,
        run,
        error,
        "run %r (%s %s) failed: %s",
        (run.run_id, run.workflow, run.version, why),
    )


def run_stuck(run: Run) -> None:
    """Tell that a run is parked, for people to look at."""
    why = _one_line(run.divergence() or "its journal says why")
    _tell(
        logging.ERROR,
        run,
        None,
        "run %r (%s %s) is stuck: %s. It waits for people: see `duramen runs show`, deploy code that fits, "
        "then `duramen runs retry`",
        (run.run_id, run.workflow, run.version, why),
        reason=why,
    )


def line_of(error: BaseException) -> str:
    r"""An exception's class and text, on one line.

    >>> line_of(ValueError("two\nlines"))
    'ValueError: two\\nlines'
    """
    text = _one_line(text_of(error))
    return f"{name_of(error)}: {text}" if text else name_of(error)


def _one_line(text: str) -> str:
    if len(text) > _LONGEST:
        text = text[:_LONGEST] + "…"
    return "\\n".join(text.splitlines())


def _tell(
    level: int, run: Run, error: BaseException | None, message: str, args: tuple[Any, ...], **more: Any
) -> None:
    facts: dict[str, Any] = {
        "duramen_run_id": run.run_id,
        "duramen_workflow": run.workflow,
        "duramen_version": run.version,
        **{f"duramen_{name}": value for name, value in more.items()},
    }
    if error is not None:
        facts["duramen_error"] = line_of(error)
    # Tracebacks are many lines, and the failure is recorded: they are for those who look closely.
    traced = error if _log.isEnabledFor(logging.DEBUG) else None
    try:
        _log.logger.log(level, message, *args, exc_info=traced, extra=facts)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - a handler asked the exception, or is broken; the run goes on
        _log.log(level, message, *args, extra=facts)


def warn_of_swallowing(log: CarefulLogger, run: Run) -> None:
    """Say that a handler was told to end and returned a result all the same."""
    for seen, what in ((run.cancelled, "its cancellation"), (run.timed_out, "the end of its time")):
        if seen:
            log.warning(
                "run %r swallowed %s and returned a result, so it counts as completed", run.run_id, what
            )


def warn_of_leaks(log: CarefulLogger, run: Run, leaked: Sequence[Task[Any]]) -> None:
    """Say which tasks a handler left behind."""
    if leaked:
        names = ", ".join(repr(task.get_name()) for task in leaked[:8])
        log.warning(
            "run %r ended with %d of its tasks still running, which were dropped: %s%s; await them, or "
            "use a TaskGroup",
            run.run_id,
            len(leaked),
            names,
            " …" if len(leaked) > 8 else "",
        )
