"""Formats: a newer version's runs are left to those who can read them. Generations: journals begin anew."""

# ruff: noqa: S101 - asserting is what rules do

from __future__ import annotations

from typing import TYPE_CHECKING

from .interventions import intervene, reopen, terminate
from .support import (
    APPLIED,
    FENCED,
    T0,
    Rules,
    claim,
    commit,
    commit_one,
    continued,
    detail,
    entry,
    finished,
    ids,
    journal,
    lane,
    length,
    live,
    message,
    new_run,
    pause,
    read,
    row,
    rule,
    send,
    seqs,
    standing,
    waiting,
)

if TYPE_CHECKING:
    from duramen.store import Store


BEGIN = entry("", b"1", kind="run_created")
"""The last entry of a generation: the first of the next one."""


class FormatRules(Rules):
    """A run stands in a lane of those who can read its journal and its inbox."""

    @rule
    async def test_a_run_of_a_newer_format_is_left_to_newer_readers(self, store: Store) -> None:
        await store.create([new_run("new", entries=[entry("s", encoding=2)]), new_run("old")])
        assert (await row(store, "new"))["format"] == 2
        assert (await row(store, "old"))["format"] == 1
        assert ids(await store.claim(claim())) == ["old"]
        (run,) = (await store.claim(claim(lanes=[lane(), lane(format=2)])))["runs"]
        assert (run["row"]["run_id"], run["row"]["format"]) == ("new", 2)

    @rule
    async def test_a_newer_message_moves_the_run_to_another_lane(self, store: Store) -> None:
        await pause(store, "a", "event:go")
        assert (await send(store, message(encoding=3)))[0] == "delivered"
        assert (await row(store))["format"] == 3
        for encoding in (1, 2):
            assert ids(await store.claim(claim(now=T0 + 9, lanes=[lane(format=encoding)]))) == []
            due = await store.next_due({"lanes": [lane(format=encoding)], "now": T0})
            assert due["ready_at"] is None
        due = await store.next_due({"lanes": [lane(format=3)], "now": T0})
        assert due["ready_at"] == T0 + 2
        (run,) = (await store.claim(claim(now=T0 + 9, lanes=[lane(format=3)])))["runs"]
        assert [one["encoding"] for one in run["inbox"]] == [3]

    @rule
    async def test_only_a_message_that_is_kept_raises_the_format(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann"), new_run("end", owner="ann")])
        await commit_one(store, commit("end", entries=[entry("")], next=finished()))
        assert (await send(store, message(encoding=1)))[0] == "buffered"
        assert (await send(store, message(encoding=2)))[0] == "duplicate"
        assert (await send(store, message("end", encoding=2)))[0] == "finished"
        assert [(await row(store, name))["format"] for name in ("a", "end")] == [1, 1]
        assert (await send(store, message(message_id="m2", encoding=255)))[0] == "buffered"
        assert (await row(store, "a"))["format"] == 255

    @rule
    async def test_a_commit_raises_the_format_and_never_lowers_it(self, store: Store) -> None:
        await live(store, "cyd", lease=100)
        await store.create([new_run("a", owner="cyd")])
        for at, (asked, kept) in enumerate(((2, 2), (None, 2), (1, 2), (4, 4))):
            one = commit(owner="cyd", length=1 + at, entries=[entry("s")], format=asked)
            assert await commit_one(store, one) == APPLIED
            assert (await row(store))["format"] == kept
        # The runs of ended owners stand in lanes, too.
        assert ids(await store.claim(claim(now=T0 + 100))) == []
        assert ids(await store.claim(claim(now=T0 + 100, lanes=[lane(format=4)]))) == ["a"]

    @rule
    async def test_a_pause_may_raise_the_format(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        rest = commit(next=waiting("timer", ready_at=T0 + 5), format=2)
        assert await commit_one(store, rest) == APPLIED
        assert ids(await store.claim(claim(now=T0 + 5))) == []
        assert ids(await store.claim(claim(now=T0 + 5, lanes=[lane(format=2)]))) == ["a"]

    @rule
    async def test_entries_from_outside_raise_the_format(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann"), new_run("b")])
        stop = terminate("b")
        stop["entry"]["encoding"] = 2
        assert await intervene(store, stop) == "done"
        assert (await row(store, "b"))["format"] == 2
        await commit_one(store, commit(entries=[entry("")], next=finished("failed")))
        again = reopen("a")
        again["entries"] = [entry("", kind="run_reopened", encoding=1), entry("", encoding=5)]
        assert await intervene(store, again) == "done"
        assert ids(await store.claim(claim(now=T0 + 99))) == []
        assert ids(await store.claim(claim(now=T0 + 99, lanes=[lane(format=5)]))) == ["a"]

    @rule
    async def test_kinds_of_newer_versions_are_kept(self, store: Store) -> None:
        later = entry("s", encoding=2)
        later["kind"] = {"unknown": 200}
        await store.create([new_run("a", owner="ann", entries=[later])])
        assert await commit_one(store, commit(length=2, entries=[later])) == APPLIED
        assert list(await store.load("a", 1, 9)) == [later, later]
        sent = message(encoding=2)
        sent["kind"] = {"unknown": 77}
        await commit_one(store, commit(length=3, next=waiting("event:go", "timer", ready_at=T0 + 5)))
        assert (await send(store, sent))[0] == "buffered"
        (run,) = (await store.claim(claim(now=T0 + 5, lanes=[lane(format=2)])))["runs"]
        assert [one["kind"] for one in run["inbox"]] == [{"unknown": 77}]


class GenerationRules(Rules):
    """A run that is continued as new keeps its id, inbox and dedupe keys, and its journal begins anew."""

    @rule
    async def test_a_run_that_is_continued_begins_anew(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann", input=b"one", timeout=700, memo=b"memo", tags=["t"])])
        one = commit(
            entries=[entry("s"), entry("", b"two", kind="run_created", at=T0 + 5)],
            next=continued(T0 + 50),
            state=b"state",
            at=T0 + 5,
        )
        assert await commit_one(store, one) == APPLIED
        found = await detail(store)
        got = found["row"]
        assert (got["status"], got["owner"], got["ready_at"]) == ("queued", None, T0 + 50)
        assert (got["journal_start"], got["journal_len"], got["generation"]) == (2, 3, 1)
        assert (got["epoch"], got["updated_at"], got["started_at"]) == (1, T0 + 5, T0)
        assert (got["deadline"], got["timeout"], got["finished_at"]) == (T0 + 750, 700, None)
        assert (found["input"], found["state"], found["memo"], found["end"]) == (
            b"two",
            b"state",
            b"memo",
            None,
        )
        assert await journal(store, start=2) == [("", b"two")]
        stands = await standing(store)
        assert (stands["generation"], stands["journal_len"]) == (1, 3)
        assert ids(await store.claim(claim(now=T0 + 49))) == []
        (run,) = (await store.claim(claim(now=T0 + 50)))["runs"]
        assert (run["was"], run["row"]["epoch"], run["row"]["started_at"]) == ("queued", 2, T0)
        assert run["journal"] is not None
        assert [(each["kind"], each["payload"]) for each in run["journal"]] == [("run_created", b"two")]

    @rule
    async def test_the_journal_goes_on_from_its_whole_length(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann", input=b"x" * 1_000), new_run("b", at=T0 + 2)])
        for generation in range(3):
            one = commit(
                epoch=1 + generation,
                length=1 + 2 * generation,
                entries=[entry("s"), BEGIN],
                next=continued(T0),
                owner="ann",
            )
            assert await commit_one(store, one) == APPLIED
            warm = [("a", 3 + 2 * generation)]
            # What the former generations recorded weighs nothing.
            asked = claim("ann", now=T0 + 1, warm=warm if generation else (), max_bytes=100)
            (run,) = (await store.claim(asked))["runs"]
            assert (run["journal"] is None) == bool(generation)
        got = await row(store)
        assert (got["generation"], got["journal_start"], got["journal_len"]) == (3, 6, 7)
        assert await commit_one(store, commit(epoch=4, length=1, entries=[entry("s")])) == FENCED
        last = commit(epoch=4, length=7, entries=[entry("", b"end")], next=finished())
        assert await commit_one(store, last) == APPLIED
        found = await detail(store)
        assert found["end"] is not None
        assert (found["input"], found["end"]["payload"]) == (b"1", b"end")
        assert await length(store) == 8

    @rule
    async def test_what_a_generation_recorded_goes_with_it(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann"), new_run("b", owner="ann", input=b"other")])
        assert await commit_one(store, commit(entries=[entry("s"), entry("t")])) == APPLIED
        assert await commit_one(store, commit("b", entries=[entry("s")])) == APPLIED
        one = commit(length=3, entries=[entry("u"), entry("v"), BEGIN], next=continued(T0))
        other = commit("b", length=2, entries=[entry("t")])
        # Beside another run's commit, which is none of its business.
        assert list(await store.commit([one, other])) == [APPLIED, APPLIED]
        assert await journal(store, start=5) == [("", b"1")]
        # Whoever reads on from an index of the former generation must not take the new one's entries for it.
        for start in range(5):
            assert await journal(store, start=start) == []
        assert await journal(store, "b") == [("", b"other"), ("s", b"1"), ("t", b"1")]
        (run,) = (await store.claim(claim("ann", now=T0)))["runs"]
        assert (run["row"]["journal_start"], run["row"]["journal_len"]) == (5, 6)
        assert await commit_one(store, commit(epoch=2, length=6, entries=[entry("s")])) == APPLIED
        assert await journal(store, start=5) == [("", b"1"), ("s", b"1")]

    @rule
    async def test_a_generation_may_be_of_another_version(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann", tags=["t"])])
        assert await commit_one(store, commit(entries=[BEGIN], next=continued(T0, "2"))) == APPLIED
        assert (await row(store))["version"] == "2"
        assert ids(await store.claim(claim(now=T0))) == []
        for version, found in (("1", []), ("2", ["a"])):
            page = await store.list({"version": version}, 9, None)
            assert [one["run_id"] for one in page["rows"]] == found
        (run,) = (await store.claim(claim(now=T0, lanes=[lane(version="2")])))["runs"]
        assert run["row"]["version"] == "2"

    @rule
    async def test_a_generation_is_of_a_version_that_can_be_kept(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        for version in ("", "a\x00b", "v" * 256):
            outcome = await commit_one(store, commit(entries=[BEGIN], next=continued(T0, version)))
            assert outcome["kind"] == "rejected"
        assert await length(store) == 1

    @rule
    async def test_inbox_and_dedupe_keys_go_on(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        await store.deliver([message(message_id="m1", fingerprint="f"), message(message_id="m2")])
        one = commit(entries=[BEGIN], read=[read(1, reply=b"yes")], seen=1, next=continued(T0 + 5))
        # It is due when it says, whatever lies in its inbox.
        assert await commit_one(store, one) == APPLIED
        assert (await row(store))["ready_at"] == T0 + 5
        assert await send(store, message(message_id="m1")) == ("duplicate", "f", None)
        assert await send(store, message(message_id="m3")) == ("buffered", None, None)
        (run,) = (await store.claim(claim(now=T0 + 5)))["runs"]
        assert (seqs(run["inbox"]), run["row"]["inbox_seen"], run["row"]["unread"]) == ([2, 3], 1, 2)
        assert list(await store.receipts([("a", "m1")])) == [{"kind": "consumed", "reply": b"yes"}]

    @rule
    async def test_a_run_without_a_timeout_gets_none(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        assert await commit_one(store, commit(entries=[BEGIN], next=continued())) == APPLIED
        assert (await row(store))["deadline"] is None

    @rule
    async def test_lost_drivers_of_the_former_generation_do_not_count(self, store: Store) -> None:
        await live(store, "cyd", lease=10)
        await store.create([new_run("a", owner="cyd")])
        await store.claim(claim(now=T0 + 10))
        assert (await row(store))["lost"] == 1
        one = commit(owner="bob", epoch=2, entries=[BEGIN], next=continued())
        assert await commit_one(store, one) == APPLIED
        got = await row(store)
        assert (got["lost"], got["lost_at"]) == (0, 0)

    @rule
    async def test_a_generation_begins_with_a_beginning(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        for entries in ([], [entry("s")], [BEGIN, entry("s")]):
            outcome = await commit_one(store, commit(entries=entries, next=continued()))
            assert outcome["kind"] == "rejected"
        assert await length(store) == 1
