"""One performance from beginning to end: conduct, read the stores, prove, draw."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from duramen import Event, Runtime
from duramen.cli.timeline import Segment, draw

from . import files
from .conductor import Happened, conduct
from .counting import shelf, stocktaking
from .processes import store_url
from .proof import Claim, Evidence, prove
from .screen import Screen, incident, proof_table
from .workflow import fulfillment

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Result", "play"]


@dataclass(frozen=True)
class Result:
    """What came of it."""

    happened: Happened
    evidence: Evidence
    claims: list[Claim]
    seconds: float

    @property
    def holds(self) -> bool:
        """Every claim holds."""
        return all(claim.holds for claim in self.claims)

    def facts(self) -> dict[str, Any]:
        """The result for programs."""
        return {
            "holds": self.holds,
            "orders": len(self.happened.orders),
            "seconds": round(self.seconds, 1),
            "incidents": [{"at": round(at, 1), "what": text} for at, text in self.happened.notes],
            "claims": [
                {
                    "text": claim.text,
                    "expected": claim.expected,
                    "found": claim.found,
                    "holds": claim.holds,
                    "details": claim.details,
                }
                for claim in self.claims
            ],
            "processes": self.happened.reports,
        }

    def screen(self, width: int) -> RenderableType:
        """The last screen: what was proven, and one run's timeline."""
        verdict = (
            Text(
                f"{len(self.happened.orders)} orders, {self.seconds:.0f} s: every line holds",
                style="bold green",
            )
            if self.holds
            else Text("not every line holds", style="bold red")
        )
        return Group(proof_table(self.claims), verdict, Text(), *self._one_run(width), Text(), self._live())

    def _live(self) -> Text:
        """What was read live from the stream of the last stocktaking."""
        last = max((run_id for run_id, _, _ in self.happened.live), default="")
        found = [f"{item.shelf} {item.places}" for run_id, _, item in self.happened.live if run_id == last]
        return Text.assemble(("stream of ", ""), (last, "bold"), f", read live: {', '.join(found)}")

    def _one_run(self, width: int) -> list[RenderableType]:
        """The timeline of the run that has most to tell."""
        journals = self.evidence.journals
        run_id = max(journals, key=lambda each: (self._interest(each), each))
        attempts: dict[str, list[Segment]] = {}
        remarks: dict[str, str] = {}
        recorded = self.evidence.recorded()
        for attempt in self.evidence.attempts:
            run, _, op = attempt.key.rpartition("/")
            if run != run_id:
                continue
            entry = recorded.get(attempt.number)
            begin = datetime.fromtimestamp(attempt.started, UTC)
            fate = "magenta" if entry is None else "green" if entry.kind == "step_completed" else "red"
            end = entry.at if entry else self._cut(attempt.owner, attempt.started)
            attempts.setdefault(op, []).append(Segment(begin, max(begin, end), fate))
            said = attempt.owner if entry else f"{attempt.owner} ✗"
            remarks[op] = f"{remarks[op]}, {said}" if op in remarks else said
        table = draw(journals[run_id], datetime.now(UTC), width=width, attempts=attempts, remarks=remarks)
        return [Text.assemble(("order ", ""), (run_id, "bold"), ", attempts by worker:"), table]

    def _interest(self, run_id: str) -> tuple[int, int]:
        journal = self.evidence.journals[run_id]
        lost = int(run_id in self.happened.stopped_runs)
        return lost * int(any(entry.kind == "approval_resolved" for entry in journal)), len(journal)

    def _cut(self, owner: str, started: float) -> datetime:
        """When an attempt that was not recorded was interrupted."""
        cut = self.happened.killed_at if owner == self.happened.killed else self.happened.stopped_at
        return datetime.fromtimestamp(max(cut, started), UTC)

    def picture(self) -> str:
        """The last screen as an SVG."""
        console = Console(file=io.StringIO(), record=True, width=100, force_terminal=True)
        console.print("$ make demo", style="bold")
        for at, text in self.happened.notes:
            console.print(incident(at, text))
        console.print(self.screen(100))
        return console.export_svg(title="make demo")


async def play(folder: Path, count: int, console: Console, limit: float) -> Result:
    """Process the first `count` orders in `folder`, and draw on `console`."""
    begun = time.monotonic()
    with Screen(console) as screen:
        happened = await conduct(folder, files.orders()[:count], screen.show, limit)
        screen.show(happened)
    evidence = await read(folder)
    result = Result(happened, evidence, prove(happened, evidence), time.monotonic() - begun)
    console.print(result.screen(console.width))
    return result


async def read(folder: Path) -> Evidence:
    """Read both stores, the journals with a runtime that knows no workflow."""
    journals: dict[str, list[Event]] = {}
    async with Runtime(store_url(folder)) as runtime:
        listed = [run.run_id for run in await runtime.list(workflow=fulfillment.name, limit=1000)]
        runs = {run.run_id: run for run in await runtime.get_many(listed) if run is not None}
        for run_id in listed:
            journals[run_id] = await runtime.timeline(run_id)
        counted = await runtime.list(workflow=stocktaking.name, limit=1000)
        children = await runtime.list(workflow=shelf.name, limit=1000)
    return Evidence.read(folder / "warehouse.db", runs, journals, [*counted], [*children])
