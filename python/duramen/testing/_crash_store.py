"""The store of a crash test: it counts the changes of a store, and the process is gone at one of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from typing_extensions import override

from duramen.errors import StoreUnavailable

from ._wrapped_store import WrappedStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from duramen.store import Store

__all__ = ["Change", "CrashingStore", "Side"]

Side = Literal["before", "after"]

_CHANGES = frozenset(
    {"create", "claim", "commit", "deliver", "intervene", "sent", "append", "change_schedules"}
)
_ENDS = frozenset({"step_completed", "step_failed"})


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the store, at which a process can crash."""

    number: int
    """1 for the first of its scenario."""
    method: str
    """A name of `duramen.store.Store`."""
    what: str
    """What was changed, for people."""

    def __str__(self) -> str:
        return f"change {self.number} ({self.method}: {self.what})"


class CrashingStore(WrappedStore):
    """Passes calls on, and crashes before or after one change. A claim that finds nothing changes nothing.

    Args:
        inner: the store.
        at: which change; 0: none.
        side: before the change takes place, or after it, with nobody knowing that it did.
        survive: instead of a crash the call fails, and the process goes on.
        on_recorded: called with run id, operation id and kind of each outcome of a step that is stored now.
        on_reopened: called with the id of each run that was reopened.
        on_continued: called with the id of each run whose next generation begins.
    """

    def __init__(
        self,
        inner: Store,
        *,
        at: int = 0,
        side: Side = "before",
        survive: bool = False,
        on_recorded: Callable[[str, str, str], object] | None = None,
        on_reopened: Callable[[str], object] | None = None,
        on_continued: Callable[[str], object] | None = None,
    ) -> None:
        super().__init__(inner)
        self.changes: list[Change] = []
        self.reached = False
        """Whether that change was reached."""
        self._at = at
        self._side = side
        self.crashed = asyncio.Event()
        """Set at the crash: that call is never answered, and no later one is passed on."""
        self.on_crash: Callable[[], object] | None = None
        """Called at the crash."""
        self.survive = survive
        self._on_recorded = on_recorded
        self._on_reopened = on_reopened
        self._on_continued = on_continued

    @property
    def change(self) -> Change:
        """The change at which it crashed; the latest, if it did not."""
        return self.changes[self._at - 1 if self.reached else -1]

    @override
    async def call(self, method: str, *args: Any) -> Any:
        """Crash at a call, or pass it on."""
        if self.crashed.is_set():
            await asyncio.Event().wait()
        if method not in _CHANGES or (method == "claim" and not await self._finds(args[0])):
            return await super().call(method, *args)
        change = Change(len(self.changes) + 1, method, describe(method, args[0]))
        self.changes.append(change)
        if change.number == self._at and self._side == "before":
            await self._end("before", method)
        answer = await super().call(method, *args)
        if method == "commit":
            self._note_commits(args[0], answer)
        elif method == "intervene":
            self._note_interventions(args[0], answer)
        if change.number == self._at and self._side == "after":
            await self._end("after", method)
        return answer

    async def _finds(self, claim: Any) -> bool:
        """Whether a claim would change something: others are made now and then, and count for nothing."""
        due = await self.inner.next_due({"lanes": claim["lanes"], "now": claim["now"]})
        return due["ready_at"] is not None and due["ready_at"] <= due["now"]

    def _note_commits(self, batch: Any, answer: Any) -> None:
        for commit, outcome in zip(batch, answer, strict=True):
            if outcome["kind"] != "applied":
                continue
            if self._on_recorded is not None:
                for entry in commit["entries"]:
                    if entry["kind"] in _ENDS:
                        self._on_recorded(commit["run_id"], entry["op"], entry["kind"])
            if self._on_continued is not None and commit["next"]["kind"] == "continued":
                self._on_continued(commit["run_id"])

    def _note_interventions(self, batch: Any, answer: Any) -> None:
        if self._on_reopened is None:
            return
        for intervention, outcome in zip(batch, answer, strict=True):
            if outcome == "done" and intervention["kind"] == "reopen":
                self._on_reopened(intervention["run_id"])

    async def _end(self, side: str, method: str) -> None:
        self.reached = True
        if self.survive:
            raise StoreUnavailable(f"the connection broke {side} {method}() took place (an injected fault)")
        self.crashed.set()
        if self.on_crash is not None:
            self.on_crash()
        await asyncio.Event().wait()


def describe(method: str, argument: Any) -> str:
    """Say in a line what a call would change."""
    if method == "claim":
        return "runs that are due"
    if method == "change_schedules":
        return "; ".join(each["id"] for each in argument)
    told: list[str] = []
    for each in argument:
        detail = ""
        if method == "commit":
            entries = [f"{entry['kind']} {entry['op']}".strip() for entry in each["entries"]]
            detail = ", ".join([*entries, each["next"]["kind"]])
        elif method == "append":
            detail = f"{len(each['items'])} items"
        elif method == "deliver":
            detail = f"{each['kind']} {each['name']}"
        told.append(f"{each['run_id']} ({detail})" if detail else each["run_id"])
    return "; ".join(told)
