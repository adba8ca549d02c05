"""What the rules are written with: requests with everything filled in, and a runner for coroutines."""

# ruff: noqa: S101 - asserting is what rules do

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from duramen.store import (
        Claim,
        Claimed,
        CommitOutcome,
        Due,
        Entry,
        Message,
        MessageKind,
        NewMessage,
        NewRun,
        Next,
        ReadMessage,
        RunCommit,
        RunDetail,
        RunRow,
        Start,
        Status,
        Store,
        WorkflowKey,
    )

RulesT = TypeVar("RulesT", bound="Rules")

T0 = 1_700_000_000_000
"""The instant at which most rules begin."""
LEASE = 30_000
SEED = tuple(range(1, 17))
RUNNING: Next = {"kind": "running"}
APPLIED: CommitOutcome = {"kind": "applied", "due": False}
FENCED: CommitOutcome = {"kind": "fenced"}


class Rules:
    """Base of all groups of rules: how to come by a store."""

    shared = True
    """Two stores opened at one place see the same runs."""
    durable = True
    """Runs are still there when every store of a place was closed and one is opened again."""

    async def open_store(self, place: Path) -> Store:
        """Open a store at an empty directory, or once more at one that this method was called with before."""
        raise NotImplementedError("a subclass of StoreContract says how its store is opened")


def rule(check: Callable[[RulesT, Store], Awaitable[None]]) -> Callable[[RulesT, Path], None]:
    """Make a test of a coroutine function that takes a fresh store."""

    async def on_a_store(self: RulesT, place: Path) -> None:
        store = await self.open_store(place)
        try:
            await store.migrate()
            await check(self, store)
        finally:
            await store.close()

    def test(self: RulesT, tmp_path: Path) -> None:
        asyncio.run(on_a_store(self, tmp_path))

    return _named(test, check)


def rule_of_place(check: Callable[[RulesT, Path], Awaitable[None]]) -> Callable[[RulesT, Path], None]:
    """Make a test of a coroutine function that opens stores itself."""

    def test(self: RulesT, tmp_path: Path) -> None:
        asyncio.run(_run(check, self, tmp_path))

    return _named(test, check)


async def _run(check: Callable[..., Awaitable[None]], *args: Any) -> None:
    await check(*args)


def _named(test: Any, check: Any) -> Any:
    # Not functools.wraps: pytest would read the signature of what is wrapped.
    test.__name__, test.__qualname__, test.__doc__ = check.__name__, check.__qualname__, check.__doc__
    test.__module__ = check.__module__
    return test


# -- requests ------------------------------------------------------------------------------------------------


def key(name: str = "w", version: str = "1") -> WorkflowKey:
    """A workflow."""
    return {"name": name, "version": version}


def entry(op: str = "step", payload: bytes = b"1", kind: str = "step_completed", at: int = T0) -> Entry:
    """A journal entry."""
    return {"encoding": 1, "kind": kind, "op": op, "meta": None, "payload": payload, "at": at}


def new_run(
    run_id: str = "a",
    *,
    workflow: str = "w",
    version: str = "1",
    input: bytes = b"{}",  # noqa: A002 - the field's name
    at: int | None = None,
    owner: str | None = None,
    lease: int = LEASE,
    tags: Sequence[str] = (),
    memo: bytes | None = None,
    timeout: int | None = None,
    now: int = T0,
) -> NewRun:
    """A run to create: queued, or leased if it has an owner."""
    start: Start
    if owner is None:
        start = {"kind": "queued", "at": at}
    else:
        start = {"kind": "leased", "owner": owner, "lease": lease}
    return {
        "run_id": run_id,
        "workflow": workflow,
        "version": version,
        "input": input,
        "start": start,
        "tags": list(tags),
        "memo": memo,
        "timeout": timeout,
        "seed": SEED,
        "now": now,
    }


def claim(
    owner: str = "bob",
    *,
    now: int = T0,
    due: Due = "any",
    limit: int = 100,
    workflows: Sequence[WorkflowKey] | None = None,
    run_id: str | None = None,
    warm: Sequence[tuple[str, int]] = (),
    turn: int = 0,
    max_bytes: int | None = None,
    lease: int = LEASE,
) -> Claim:
    """A claim."""
    return {
        "owner": owner,
        "lease": lease,
        "now": now,
        "due": due,
        "limit": limit,
        "workflows": [key()] if workflows is None else list(workflows),
        "run_id": run_id,
        "warm": list(warm),
        "turn": turn,
        "max_bytes": max_bytes,
    }


def commit(
    run_id: str = "a",
    owner: str = "ann",
    epoch: int = 1,
    length: int = 1,
    *,
    entries: Sequence[Entry] = (),
    read: Sequence[ReadMessage] = (),
    seen: int = 0,
    next: Next = RUNNING,  # noqa: A002 - the field's name
    state: bytes | None = None,
    at: int = T0 + 1,
) -> RunCommit:
    """A run commit; without arguments, one that changes only `updated_at`."""
    return {
        "run_id": run_id,
        "owner": owner,
        "epoch": epoch,
        "expected_len": length,
        "entries": list(entries),
        "read": list(read),
        "inbox_seen": seen,
        "next": next,
        "state": state,
        "at": at,
    }


def waiting(*waits: str, ready_at: int | None = None) -> Next:
    """The end of a commit that pauses its run."""
    return {"kind": "waiting", "ready_at": ready_at, "waits": list(waits)}


def finished(status: Status = "completed") -> Next:
    """The end of a commit that ends its run."""
    return {"kind": "finished", "status": status}


def message(
    run_id: str = "a",
    message_id: str = "m",
    name: str = "go",
    *,
    kind: MessageKind = "event",
    payload: bytes = b'"hello"',
    fingerprint: str | None = None,
    now: int = T0 + 2,
) -> NewMessage:
    """A message to send."""
    return {
        "run_id": run_id,
        "message_id": message_id,
        "kind": kind,
        "name": name,
        "payload": payload,
        "fingerprint": fingerprint,
        "now": now,
    }


# -- what rules ask again and again --------------------------------------------------------------------------


async def detail(store: Store, run_id: str = "a") -> RunDetail:
    """The run as people see it; it must exist."""
    (found,) = await store.get([run_id])
    assert found is not None, f"there is no run {run_id!r}"
    return found


async def row(store: Store, run_id: str = "a") -> RunRow:
    """The run's row; it must exist."""
    return (await detail(store, run_id))["row"]


async def journal(store: Store, run_id: str = "a") -> list[tuple[str, bytes]]:
    """The run's journal, as operations and payloads."""
    return [(one["op"], one["payload"]) for one in await store.load(run_id, 0, 1_000_000)]


async def commit_one(store: Store, one: RunCommit) -> CommitOutcome:
    """Send a single commit."""
    (outcome,) = await store.commit([one])
    return outcome


async def send(store: Store, one: NewMessage) -> tuple[str, str | None, str | None]:
    """Send a single message: its result, fingerprint and owner."""
    (answer,) = await store.deliver([one])
    return answer["result"], answer["fingerprint"], answer["owner"]


async def pause(store: Store, run_id: str = "a", *waits: str, ready_at: int | None = None) -> None:
    """Create a run and let it wait."""
    await store.create([new_run(run_id, owner="ann")])
    outcome = await commit_one(store, commit(run_id, next=waiting(*waits, ready_at=ready_at)))
    assert outcome == APPLIED


def ids(claimed: Claimed) -> list[str]:
    """The ids of claimed runs, in their order."""
    return [run["row"]["run_id"] for run in claimed["runs"]]


def seqs(messages: Sequence[Message]) -> list[int]:
    """The sequence numbers of messages, in their order."""
    return [one["seq"] for one in messages]
