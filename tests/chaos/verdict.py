"""What the ledger and the store say together about a time of chaos."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.app import STAGES

GIVEN = {
    "left": "{first}",
    "right": "{first}",
    "last": "{left}+{right}+{word}",
    "end": "{last}",
    "first": "-",
}


@dataclass(frozen=True)
class Attempt:
    """One attempt of a step, as it noted itself."""

    at: int
    """When it began, by the machine's clock that all processes share, in nanoseconds."""
    pid: int
    run_id: str
    name: str
    token: str
    given: str


@dataclass
class Verdict:
    """The table: counts of what must not be, and of what happened."""

    wrong: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    facts: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def holds(self) -> bool:
        """Whether nothing happened that must not."""
        return not any(self.wrong.values())

    def __str__(self) -> str:
        lines = [f"{name:<58} {count:>8,}" for name, count in self.facts.items()]
        lines.append("")
        for name, cases in self.wrong.items():
            lines.append(
                f"{name:<58} {len(cases):>8,}  {'ok' if not cases else 'WRONG: ' + '; '.join(cases[:5])}"
            )
        return "\n".join(lines)


def read_ledger(folder: Path) -> tuple[list[Attempt], set[str]]:
    """All attempts in the order in which they began, and the tokens of those that came to their end."""
    attempts, ended = list[Attempt](), set[str]()
    for path in folder.iterdir():
        for line in path.read_text("utf-8").splitlines():
            at, kind, run_id, name, token, given = line.split(" ")
            if kind == "end":
                ended.add(token)
            else:
                attempts.append(Attempt(int(at), int(path.name), run_id, name, token, given))
    return sorted(attempts, key=lambda attempt: attempt.at), ended


def judge(
    words: Mapping[str, str],
    outputs: Mapping[str, list[str] | None],
    statuses: Mapping[str, str],
    ledger: Path,
    continued: Mapping[int, list[int]],
) -> Verdict:
    """Compare.

    Args:
        words: the runs that were accepted, each with the event that was sent to it.
        outputs: what completed runs gave.
        statuses: of all runs in the store.
        ledger: the folder of the attempts' notes.
        continued: when stopped processes went on, by process.
    """
    attempts, ended = read_ledger(ledger)
    verdict = Verdict()
    wrong = verdict.wrong
    wrong["runs lost"] = [run_id for run_id in words if run_id not in statuses]
    wrong["runs that nobody started"] = [run_id for run_id in statuses if run_id not in words]
    wrong["runs that did not end, or not well"] = [
        f"{run_id} {status}" for run_id, status in statuses.items() if status != "completed"
    ]
    results = dict[str, dict[str, str]]()
    wrong["events lost or altered"] = []
    for run_id, output in outputs.items():
        if output is not None:
            first, left, right, word, last, end = output
            tokens = {"first": first, "left": left, "right": right, "last": last, "end": end}
            results[run_id] = {**tokens, "word": word}
            if word != words.get(run_id):
                wrong["events lost or altered"].append(run_id)
    wrong["results that no attempt came to"] = [
        f"{run_id}/{name}"
        for run_id, tokens in results.items()
        for name, token in tokens.items()
        if name != "word" and token not in ended
    ]
    # Whoever writes late and is accepted makes a second history: later steps were given the first.
    wrong["attempts that were given another history"] = [
        f"{one.run_id}/{one.name}"
        for one in attempts
        if one.run_id in results and one.given != GIVEN[one.name].format_map(results[one.run_id])
    ]
    wrong["steps run again after their result was recorded"], surprised = _again(attempts, continued)
    steps = {(one.run_id, one.name) for one in attempts}
    verdict.facts = {
        "runs": len(words),
        "steps": len(steps),
        "attempts of steps": len(attempts),
        "attempts repeated: cut short or not recorded": len(attempts) - len(steps) - len(surprised),
        "attempts begun in the instant a stopped worker went on": len(surprised),
    }
    return verdict


INSTANT = 200_000_000
"""Nanoseconds. No store can take back the effect of a process that was stopped between its last look at its
lease and the first line of the step, and goes on later: its result is refused. They are counted apart."""


def _again(attempts: list[Attempt], continued: Mapping[int, list[int]]) -> tuple[list[str], list[str]]:
    furthest: dict[str, int] = {}
    again, surprised = list[str](), list[str]()
    for one in attempts:
        stage = STAGES[one.name]
        if stage < furthest.get(one.run_id, 0):
            sudden = any(0 <= one.at - at < INSTANT for at in continued.get(one.pid, ()))
            (surprised if sudden else again).append(f"{one.run_id}/{one.name}")
        furthest[one.run_id] = max(stage, furthest.get(one.run_id, 0))
    return again, surprised


def facts_of(events: list[dict[str, Any]]) -> dict[str, int]:
    """What a fleet said of itself."""
    (ended,) = [event for event in events if event["event"] == "ended"]
    died = [event["how"] for event in events if event["event"] == "died"]
    return {
        "workers replaced after they were killed": died.count("killed by SIGKILL"),
        "workers replaced that could not reach the server at first": died.count("exit code 4"),
        "runs claimed": ended["claimed"],
        "runs lost to others": ended["lost"],
        "commits refused": ended["refused"],
    }
