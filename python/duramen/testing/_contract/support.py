"""What the rules are written with: requests with everything filled in, and a runner for coroutines."""

# ruff: noqa: S101 - asserting is what rules do

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from duramen.store import lane_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from duramen.store import (
        Beat,
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
        Outgoing,
        ReadMessage,
        RunCommit,
        RunDetail,
        RunRow,
        Standing,
        Start,
        Status,
        Store,
        StreamWrite,
        Unsent,
    )

RulesT = TypeVar("RulesT", bound="Rules")

T0 = 1_700_000_000_000
"""The instant at which most rules begin."""
LEASE = 30_000
FOR_EVER = 10**15
"""The lease of ann and bob, who live through every rule; others are registered where they appear."""
SEED = tuple(range(1, 17))
OTHER_SEED = tuple(range(240, 256))
"""Of another life of an id."""
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
            await live(store, "ann", "bob")
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


def lane(workflow: str = "w", version: str = "1", *, queue: str = "default", format: int = 1) -> str:  # noqa: A002
    """A lane."""
    return lane_key(queue, workflow, version, format)


def entry(
    op: str = "step",
    payload: bytes = b"1",
    kind: str = "step_completed",
    at: int = T0,
    encoding: int = 1,
) -> Entry:
    """A journal entry."""
    return {"encoding": encoding, "kind": kind, "op": op, "meta": None, "payload": payload, "at": at}


def new_run(
    run_id: str = "a",
    *,
    workflow: str = "w",
    version: str = "1",
    queue: str = "default",
    priority: int = 5,
    input: bytes = b"{}",  # noqa: A002 - the field's name
    entries: Sequence[Entry] = (),
    started_at: int | None = None,
    at: int | None = None,
    owner: str | None = None,
    tags: Sequence[str] = (),
    memo: bytes | None = None,
    timeout: int | None = None,
    seed: Sequence[int] = SEED,
    parent: str | None = None,
    root: str | None = None,
    origin: str | None = None,
    now: int = T0,
) -> NewRun:
    """A run to create: queued, or leased if it has an owner (who must be live)."""
    start: Start = {"kind": "queued", "at": at}
    if owner is not None:
        start = {"kind": "leased", "owner": owner}
    return {
        "run_id": run_id,
        "workflow": workflow,
        "version": version,
        "queue": queue,
        "priority": priority,
        "input": input,
        "entries": list(entries),
        "started_at": started_at,
        "start": start,
        "tags": list(tags),
        "memo": memo,
        "timeout": timeout,
        "seed": seed,
        "parent": parent,
        "root": root,
        "origin": origin,
        "now": now,
    }


def claim(
    owner: str = "bob",
    *,
    now: int = T0,
    due: Due = "any",
    limit: int = 100,
    lanes: Sequence[str] | None = None,
    run_id: str | None = None,
    warm: Sequence[tuple[str, int]] = (),
    turn: int = 0,
    max_bytes: int | None = None,
) -> Claim:
    """A claim."""
    return {
        "owner": owner,
        "now": now,
        "due": due,
        "limit": limit,
        "lanes": [lane()] if lanes is None else list(lanes),
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
    seed: Sequence[int] = SEED,
    entries: Sequence[Entry] = (),
    read: Sequence[ReadMessage] = (),
    seen: int | None = None,
    next: Next = RUNNING,  # noqa: A002 - the field's name
    state: bytes | None = None,
    outgoing: Sequence[Outgoing] = (),
    written: Sequence[StreamWrite] = (),
    format: int | None = None,  # noqa: A002 - the field's name
    at: int = T0 + 1,
) -> RunCommit:
    """A run commit; without arguments, one that changes nothing."""
    return {
        "run_id": run_id,
        "seed": seed,
        "owner": owner,
        "epoch": epoch,
        "expected_len": length,
        "entries": list(entries),
        "read": list(read),
        "inbox_seen": seen,
        "next": next,
        "state": state,
        "outgoing": list(outgoing),
        "written": list(written),
        "format": format,
        "at": at,
    }


def read(seq: int, refused: str | None = None, reply: bytes | None = None) -> ReadMessage:
    """What became of a message: it was consumed, or set aside with a reason."""
    return {"seq": seq, "refused": refused, "reply": reply}


def item(target: str = "t", body: bytes = b"item") -> Outgoing:
    """Something that leaves a run."""
    return {"kind": "message", "target": target, "body": body}


def waiting(*waits: str, ready_at: int | None = None) -> Next:
    """The end of a commit that pauses its run."""
    return {"kind": "waiting", "ready_at": ready_at, "waits": list(waits)}


def finished(status: Status = "completed") -> Next:
    """The end of a commit that ends its run."""
    return {"kind": "finished", "status": status}


def continued(ready_at: int = T0 + 1, version: str = "1") -> Next:
    """The end of a commit that begins the next generation."""
    return {"kind": "continued", "ready_at": ready_at, "version": version}


def message(
    run_id: str = "a",
    message_id: str = "m",
    name: str = "go",
    *,
    kind: MessageKind = "event",
    payload: bytes = b'"hello"',
    fingerprint: str | None = None,
    encoding: int = 1,
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
        "encoding": encoding,
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


async def standing(store: Store, run_id: str = "a") -> Standing:
    """Where the run stands; it must exist."""
    (found,) = await store.standing([run_id])
    assert found is not None, f"there is no run {run_id!r}"
    return found


async def length(store: Store, run_id: str = "a") -> int:
    """How long the run's journal is; the row of a running run may lag behind."""
    return (await standing(store, run_id))["journal_len"]


async def beat(
    store: Store,
    owner: str,
    lease: int = LEASE,
    now: int = T0,
    *,
    succeeds: str | None = None,
    label: str | None = None,
    serves: Sequence[str] = (),
    format: int = 1,  # noqa: A002 - the field's name
) -> Beat:
    """Send a sign of life."""
    return await store.heartbeat(
        {
            "owner": owner,
            "lease": lease,
            "label": label,
            "serves": list(serves),
            "format": format,
            "succeeds": succeeds,
            "now": now,
        }
    )


async def live(store: Store, *owners: str, lease: int = FOR_EVER, now: int = T0) -> None:
    """Register owners, or renew their leases."""
    for owner in owners:
        assert (await beat(store, owner, lease, now))["alive"]


async def unsent(
    store: Store, *, before: int = T0 + 10**12, run_id: str | None = None, limit: int = 100
) -> list[Unsent]:
    """What is still to be carried out."""
    return list(await store.unsent({"before": before, "run_id": run_id, "limit": limit}))


async def journal(store: Store, run_id: str = "a", start: int = 0) -> list[tuple[str, bytes]]:
    """The run's journal from an index on, as operations and payloads."""
    return [(one["op"], one["payload"]) for one in await store.load(run_id, start, 1_000_000)]


async def commit_one(store: Store, one: RunCommit) -> CommitOutcome:
    """Send a single commit."""
    (outcome,) = await store.commit([one])
    return outcome


async def commit_insisting(store: Store, one: RunCommit) -> CommitOutcome:
    """Send a single commit as an engine does: again for as long as others hold the run."""
    while (outcome := await commit_one(store, one))["kind"] == "blocked":
        pass
    return outcome


async def send_insisting(store: Store, one: NewMessage) -> tuple[str, str | None, str | None]:
    """Send a single message as a caller does: again for as long as others hold the run."""
    while (answer := await send(store, one))[0] == "blocked":
        pass
    return answer


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
