"""What is to be done about a schedule that is due: which fire times start runs, what becomes of earlier ones.

Nothing here asks anybody or changes anything but the state that it is given. What it decides becomes true
when that state is written in the place of the one that was read; only then is it carried out.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .state import Action, Asked
from .times import iso

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from .schedule import Definition
    from .state import State

__all__ = ["Plan", "decide", "jittered", "redefined", "run_id_of", "settled"]

GRACE = 120_000
"""A fire time that is found due so much later was not missed: looks into the store have pauses."""

MOST = 100
"""So many runs are started by one decision; the next one goes on."""

REMEMBERED = 100
"""So many runs that have not ended are remembered; where overlap is allowed there may be more."""


def run_id_of(schedule_id: str, at: int) -> str:
    """The id of the run that a fire time starts."""
    return f"{schedule_id}:{iso(at)}"


def jittered(schedule_id: str, definition: Definition, at: int) -> int:
    """When the run of a fire time starts: the same whoever asks."""
    if not definition.jitter_ms:
        return at
    drawn = hashlib.sha256(f"{schedule_id}\0{at}".encode()).digest()
    return at + int.from_bytes(drawn[:8], "big") % (definition.jitter_ms + 1)


@dataclass(slots=True)
class Plan:
    """What was decided: the runs to start need an input yet."""

    fires: list[Action] = field(default_factory=list[Action])
    asked: list[tuple[Asked, Action]] = field(default_factory=list[tuple[Asked, Action]])
    """What was asked for beside them."""
    ends: list[Action] = field(default_factory=list[Action])
    """Earlier runs to cancel or to terminate."""
    waits_for: list[str] = field(default_factory=list[str])
    """Runs whose end something waits for."""


def decide(schedule_id: str, definition: Definition, state: State, now: int, alive: AbstractSet[str]) -> Plan:
    """Decide about everything that is due at `now`.

    Args:
        schedule_id: whose.
        definition: what it is.
        state: what has become of it; changed in place.
        now: by the store's clock.
        alive: those runs of ``state.started`` that have not ended.
    """
    plan = Plan()
    state.started = [run_id for run_id in state.started if run_id in alive]
    looks, state.looks = state.looks, 0
    if not state.paused:
        _find_due(definition, state, now)
        _choose(schedule_id, definition, state, now, plan, first_look=not looks)
    _answer(state, plan)
    if state.started and (state.waiting or any(asked.in_turn for asked in state.asked)):
        state.looks = looks + 1
        plan.waits_for = list(state.started)
    return plan


def _find_due(definition: Definition, state: State, now: int) -> None:
    """Move the fire times that have come, and are caught up with, to those that wait to be started."""
    if now <= state.cursor:
        return  # the clock has gone back: they are behind us
    window = definition.catch_up_ms
    if not window:
        latest = definition.before(now + 1)
        if latest is not None and latest > state.cursor and (window is None or now - latest <= GRACE):
            state.waiting.append(latest)
        state.cursor = now
        return
    at = definition.after(max(state.cursor, now - window - 1))
    while at is not None and at <= now:
        if len(state.waiting) >= MOST:
            return
        state.waiting.append(at)
        state.cursor = at
        at = definition.after(at)
    state.cursor = now


def _choose(
    schedule_id: str, definition: Definition, state: State, now: int, plan: Plan, *, first_look: bool
) -> None:
    waiting, overlap = state.waiting, definition.overlap
    if not waiting:
        return
    free = not state.started
    if not definition.catch_up_ms and overlap in {"skip", "allow"}:
        # One that could not be started at its time, such as for want of an input, gives way to the next.
        state.skipped += len(waiting) - 1
        del waiting[:-1]
    if overlap == "allow":
        chosen, kept = waiting[:MOST], waiting[MOST:]
    elif overlap == "skip":
        chosen, kept = (waiting[:1] if free else []), []
    elif overlap == "buffer_one":
        chosen = waiting[:1] if free else []
        kept = waiting[len(chosen) :][:1]
    else:
        newest = waiting[-1]
        chosen, kept = ([newest], []) if free or overlap == "terminate_previous" else ([], [newest])
        for run_id in state.started:
            if overlap == "terminate_previous":
                plan.ends.append(Action("terminate", run_id))
            elif first_look:
                message_id = f"schedule:{run_id_of(schedule_id, newest)}"
                plan.ends.append(Action("cancel", run_id, message_id=message_id[:255]))
    state.skipped += len(waiting) - len(chosen) - len(kept)
    state.waiting = kept
    for at in chosen:
        start = jittered(schedule_id, definition, at)
        run_id = run_id_of(schedule_id, at)
        start_at = start if start > now else None
        plan.fires.append(Action("start", run_id, at, state.previous, start_at))
        state.previous = at


def _answer(state: State, plan: Plan) -> None:
    """Take what people have asked for, as far as it may start now."""
    later: list[Asked] = []
    for asked in state.asked:
        free = not (state.started or plan.fires or plan.asked)
        if len(plan.fires) + len(plan.asked) < MOST and (free or not asked.in_turn):
            plan.asked.append((asked, Action("start", asked.run_id, asked.at, asked.previous)))
        else:
            later.append(asked)
    state.asked = later


def settled(state: State, plan: Plan, made: int, until: int) -> None:
    """Write the plan into the state, as far as there are inputs: for the first `made` of its starts."""
    fires, asked = plan.fires[:made], [action for _, action in plan.asked[: max(0, made - len(plan.fires))]]
    if len(fires) < len(plan.fires):
        rest = plan.fires[len(fires) :]
        state.waiting = [start.at for start in rest] + state.waiting
        state.previous = rest[0].previous
    state.asked = [each for each, _ in plan.asked[len(asked) :]] + state.asked
    for start in (*fires, *asked):
        if start.run_id not in state.started:
            state.started.append(start.run_id)
        state.last_run = start.run_id
    state.fired += len(fires) + len(asked)
    del state.started[:-REMEMBERED]
    # No run is ended for the sake of one that cannot start.
    ends = plan.ends if fires or not plan.fires else []
    state.pending, state.until = [*ends, *fires, *asked], until


def redefined(state: State, before: Definition | None, after: Definition, now: int) -> None:
    """Let a schedule go on under another definition: other fire times count from now on."""
    if before is None or (before.when, before.start_ms, before.end_ms) != (
        after.when,
        after.start_ms,
        after.end_ms,
    ):
        state.cursor = max(state.cursor, now)
    if before is None or before.enabled != after.enabled:
        state.paused, state.note = not after.enabled, None
    state.mended()
