"""What a store has to be able to hold."""

# ruff: noqa: S101 - asserting is what rules do

from __future__ import annotations

from typing import TYPE_CHECKING

from .support import (
    APPLIED,
    T0,
    Rules,
    beat,
    claim,
    commit,
    commit_one,
    detail,
    entry,
    lane,
    live,
    message,
    new_run,
    read,
    row,
    rule,
    send,
    seqs,
    waiting,
)

if TYPE_CHECKING:
    from duramen.store import Store

LARGE = bytes(range(256)) * (2 * 4096)
"""2 MiB of every byte there is."""


class LimitRules(Rules):
    """What a store has to be able to hold."""

    @rule
    async def test_ids_of_255_characters(self, store: Store) -> None:
        for sign in ("x", "\u00fc", "\U0001f980"):
            name = sign * 255
            await live(store, name)
            new = new_run(name, workflow=name, version=name, queue=name, owner=name)
            new["tags"] = [name, f"{sign * 254}y"]
            new["parent"] = new["root"] = new["origin"] = name
            assert [answer["kind"] for answer in await store.create([new])] == ["created"]
            assert await send(store, message(name, name, name, fingerprint=name)) == ("buffered", None, name)
            assert await send(store, message(name, name)) == ("duplicate", name, name)
            outcome = await commit_one(
                store,
                commit(name, name, entries=[entry(name)], next=waiting(f"event:{name}", ready_at=T0 + 9)),
            )
            assert outcome == {"kind": "applied", "due": True}
            assert await store.count({"id_prefix": name, "workflow": name, "tag": name}) == 1
            assert await store.count({"waiting_for": f"event:{name}"}) == 1
            (run,) = (await store.claim(claim(name, now=T0 + 9, lanes=[lane(name, name, queue=name)])))[
                "runs"
            ]
            assert (run["row"]["run_id"], run["row"]["tags"][0]) == (name, name)
            assert (run["inbox"][0]["message_id"], run["inbox"][0]["name"]) == (name, name)
            assert run["journal"] is not None
            assert run["journal"][1]["op"] == name
            assert list(map(tuple, await store.held(name, None, 9))) == [(name, 2)]
            assert list(await store.receipts([(name, name)])) == [{"kind": "unread"}]
            assert await store.count({"parent": name, "queue": name}) == 1

    @rule
    async def test_payloads_of_two_mebibytes(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann", input=LARGE, memo=LARGE)])
        await send(store, message(payload=LARGE))
        outcome = await commit_one(
            store,
            commit(entries=[entry("s", LARGE)], state=LARGE, next=waiting("timer", ready_at=T0 + 9), seen=1),
        )
        assert outcome == APPLIED
        found = await detail(store)
        assert found["input"] == LARGE
        assert found["memo"] == LARGE
        assert found["state"] == LARGE
        (run,) = (await store.claim(claim(now=T0 + 9)))["runs"]
        assert run["journal"] is not None
        assert [one["payload"] == LARGE for one in run["journal"]] == [True, True]
        assert run["inbox"][0]["payload"] == LARGE

    @rule
    async def test_long_notes_and_facts(self, store: Store) -> None:
        note = "a long story\nof several lines \u00fc\U0001f980 " * 2_000
        one = entry("s")
        one["meta"] = note
        await store.create([new_run("a", owner="ann")])
        await send(store, message())
        await commit_one(
            store,
            commit(entries=[one], read=[read(1, note)], next={"kind": "stuck", "note": note}),
        )
        found = await detail(store)
        assert found["row"]["note"] == note
        assert found["refused"][0][1] == note
        assert (await store.load("a", 1, 1))[0]["meta"] == note

    @rule
    async def test_ten_thousand_messages_in_one_inbox(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        for part in range(10):
            batch = [message(message_id=f"m{part * 1_000 + n}", payload=b"%d" % n) for n in range(1_000)]
            answers = await store.deliver(batch)
            assert {answer["result"] for answer in answers} == {"buffered"}
        assert (await row(store))["inbox_len"] == 10_000
        assert seqs(await store.unread("ann", [])) == list(range(1, 1_001))
        used = [read(seq) for seq in range(1, 9_001)]
        rest = commit(read=used, seen=10_000, next=waiting("timer", ready_at=T0 + 9))
        assert await commit_one(store, rest) == APPLIED
        (run,) = (await store.claim(claim(now=T0 + 9)))["runs"]
        assert seqs(run["inbox"]) == list(range(9_001, 10_001))
        assert (await send(store, message(message_id="m17")))[0] == "duplicate"

    @rule
    async def test_ten_thousand_entries_in_one_journal(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        for part in range(10):
            entries = [entry(f"s{part * 1_000 + n}") for n in range(1_000)]
            assert await commit_one(store, commit(length=1 + part * 1_000, entries=entries)) == APPLIED
        assert [one["op"] for one in await store.load("a", 9_999, 10)] == ["s9998", "s9999"]
        last = commit(length=10_001, next=waiting("timer", ready_at=T0 + 9))
        assert await commit_one(store, last) == APPLIED
        (run,) = (await store.claim(claim(now=T0 + 9)))["runs"]
        assert run["journal"] is not None
        assert [one["op"] for one in run["journal"]] == ["", *(f"s{n}" for n in range(10_000))]

    @rule
    async def test_a_thousand_runs_in_one_batch(self, store: Store) -> None:
        names = [f"r{n:04}" for n in range(1_000)]
        answers = await store.create([new_run(name) for name in names])
        assert {answer["kind"] for answer in answers} == {"created"}
        claimed = await store.claim(claim("ann", limit=1_000))
        assert len(claimed["runs"]) == 1_000
        outcomes = await store.commit([commit(name, entries=[entry("s")]) for name in names])
        assert list(outcomes) == [APPLIED] * 1_000
        assert len(await store.get(names)) == 1_000
        assert [run_id for run_id, _ in await store.held("ann", None, 2_000)] == names
        await live(store, "cyd")
        assert len((await beat(store, "cyd", succeeds="ann"))["inherited"]) == 1_000
