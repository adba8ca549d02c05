"""Messages: kept once, in order, and never lost between a pause and a delivery."""

# ruff: noqa: S101 - asserting is what rules do

from __future__ import annotations

from typing import TYPE_CHECKING

from duramen.errors import InvalidArgument
from duramen.store import INBOX_PAGE, INBOX_PAGE_BYTES, MAX_UNREAD, MAX_UNREAD_BYTES

from .creation import raises
from .support import (
    APPLIED,
    T0,
    Rules,
    claim,
    commit,
    commit_one,
    detail,
    entry,
    finished,
    ids,
    message,
    new_run,
    pause,
    read,
    row,
    rule,
    send,
    seqs,
    waiting,
)

if TYPE_CHECKING:
    from duramen.store import Store


class InboxRules(Rules):
    """Messages: kept once, in order, and never lost between a pause and a delivery."""

    @rule
    async def test_a_message_makes_the_run_due_that_waits_for_it(self, store: Store) -> None:
        await pause(store, "a", "timer", "event:go", ready_at=T0 + 10**9)
        assert await send(store, message(now=T0 + 5)) == ("delivered", None, None)
        after = await row(store)
        assert (after["status"], after["ready_at"], after["inbox_len"]) == ("waiting", T0 + 5, 1)
        (run,) = (await store.claim(claim(now=T0 + 5)))["runs"]
        assert [(one["message_id"], one["payload"]) for one in run["inbox"]] == [("m", b'"hello"')]

    @rule
    async def test_an_approval_makes_the_run_due_that_waits_for_it(self, store: Store) -> None:
        await pause(store, "a", "approval:ship")
        sent = message(
            message_id="approval:ship", name="ship", kind="approval", payload=b"{}", fingerprint="approved"
        )
        assert await send(store, sent) == ("delivered", None, None)
        (run,) = (await store.claim(claim(now=T0 + 2)))["runs"]
        assert [(one["kind"], one["name"]) for one in run["inbox"]] == [("approval", "ship")]

    @rule
    async def test_a_wrong_name_is_kept_and_wakes_nobody(self, store: Store) -> None:
        await pause(store, "a", "event:go", ready_at=T0 + 100)
        for n, name in enumerate(("goo", "g", "GO", "event:go", "timer")):
            assert await send(store, message(message_id=f"m{n}", name=name)) == ("buffered", None, None)
        # An approval of that name is no event of that name.
        assert await send(store, message(message_id="x", kind="approval")) == ("buffered", None, None)
        assert (await row(store))["ready_at"] == T0 + 100
        assert ids(await store.claim(claim(now=T0 + 99))) == []
        (run,) = (await store.claim(claim(now=T0 + 100)))["runs"]
        assert seqs(run["inbox"]) == [1, 2, 3, 4, 5, 6]

    @rule
    async def test_a_message_before_its_wait_is_buffered(self, store: Store) -> None:
        await store.create([new_run("a"), new_run("b", owner="ann")])
        assert await send(store, message("a")) == ("buffered", None, None)
        assert await send(store, message("b")) == ("buffered", None, "ann")
        assert (await row(store, "b"))["ready_at"] is None

    @rule
    async def test_a_message_that_came_twice_counts_once(self, store: Store) -> None:
        await pause(store, "a", "event:go")
        assert (await send(store, message(payload=b"first")))[0] == "delivered"
        assert (await send(store, message(payload=b"second")))[0] == "duplicate"
        assert (await send(store, message(payload=b"third", name="other", kind="approval")))[0] == "duplicate"
        (run,) = (await store.claim(claim(now=T0 + 2)))["runs"]
        assert [one["payload"] for one in run["inbox"]] == [b"first"]
        assert run["row"]["inbox_len"] == 1

    @rule
    async def test_messages_come_in_the_order_of_their_arrival(self, store: Store) -> None:
        await pause(store, "a", "event:go")
        # Neither ids nor the senders' clocks say anything about it.
        for n, name in enumerate(("m9", "m1", "z", "a", "m10")):
            await send(store, message(message_id=name, now=T0 + 100 - n))
        (run,) = (await store.claim(claim(now=T0 + 100)))["runs"]
        assert [(one["seq"], one["message_id"]) for one in run["inbox"]] == [
            (1, "m9"),
            (2, "m1"),
            (3, "z"),
            (4, "a"),
            (5, "m10"),
        ]
        got = await store.unread("bob", [])
        assert [one["message_id"] for one in got] == ["m9", "m1", "z", "a", "m10"]

    @rule
    async def test_the_same_message_id_in_another_run_is_another_message(self, store: Store) -> None:
        await store.create([new_run("a"), new_run("b")])
        answers = await store.deliver([message("a"), message("b"), message("a")])
        assert [answer["result"] for answer in answers] == ["buffered", "buffered", "duplicate"]

    @rule
    async def test_a_duplicate_gets_the_first_ones_fingerprint(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        yes = message(message_id="approval:x", name="x", kind="approval", fingerprint="approved")
        no = message(message_id="approval:x", name="x", kind="approval", fingerprint="rejected")
        assert await send(store, yes) == ("buffered", None, "ann")
        assert await send(store, yes) == ("duplicate", "approved", "ann")
        assert await send(store, no) == ("duplicate", "approved", "ann")

    @rule
    async def test_a_consumed_message_is_not_given_out_again_and_remains_a_duplicate(
        self, store: Store
    ) -> None:
        await store.create([new_run("a", owner="ann")])
        await store.deliver([message(fingerprint="f"), message(message_id="m2")])
        used = commit(
            entries=[entry("w")],
            read=[read(1)],
            seen=2,
            next=waiting("timer", ready_at=T0 + 50),
        )
        assert await commit_one(store, used) == APPLIED
        assert await send(store, message()) == ("duplicate", "f", None)
        (run,) = (await store.claim(claim(now=T0 + 50)))["runs"]
        assert seqs(run["inbox"]) == [2]
        last = commit(owner="bob", epoch=2, length=2, entries=[entry("")], next=finished())
        assert await commit_one(store, last) == APPLIED
        assert await send(store, message()) == ("duplicate", "f", None)

    @rule
    async def test_a_refused_message_is_kept_with_its_reason(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        await store.deliver([message(message_id=f"m{n}", payload=b"%d" % n) for n in (1, 2, 3)])
        commits = commit(
            read=[read(3, "not a number"), read(1, "too late")],
            seen=3,
            next=waiting("event:go", ready_at=T0 + 9),
        )
        assert await commit_one(store, commits) == APPLIED
        refused = (await detail(store))["refused"]
        assert [(one["seq"], one["message_id"], one["payload"], reason) for one, reason in refused] == [
            (1, "m1", b"1", "too late"),
            (3, "m3", b"3", "not a number"),
        ]
        (run,) = (await store.claim(claim(now=T0 + 9)))["runs"]
        assert seqs(run["inbox"]) == [2]

    @rule
    async def test_what_was_read_keeps_its_fate(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        await send(store, message())
        await commit_one(store, commit(read=[read(1)], seen=1))
        await commit_one(store, commit(read=[read(1, "too late"), read(7)]))
        assert list((await detail(store))["refused"]) == []

    @rule
    async def test_messages_to_ended_and_unknown_runs_are_not_kept(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        await commit_one(store, commit(entries=[entry("")], next=finished()))
        answers = await store.deliver([message("a"), message("nobody"), message("a", kind="cancel")])
        assert [answer["result"] for answer in answers] == ["finished", "not_found", "finished"]
        assert (await row(store))["inbox_len"] == 0

    @rule
    async def test_a_cancellation_reaches_a_run_whatever_it_waits_for(self, store: Store) -> None:
        await pause(store, "waits", "event:go", ready_at=T0 + 10**9)
        await store.create([new_run("later", at=T0 + 10**9), new_run("runs", owner="ann")])
        for run_id, owner in (("waits", None), ("later", None), ("runs", "ann")):
            cancel = message(run_id, kind="cancel", name="", payload=b'"why"', now=T0 + 7)
            assert await send(store, cancel) == ("delivered", None, owner)
        assert sorted(ids(await store.claim(claim(now=T0 + 7)))) == ["later", "waits"]
        assert seqs(await store.unread("ann", [])) == [1]

    @rule
    async def test_a_message_never_moves_a_due_time_further_away(self, store: Store) -> None:
        await pause(store, "a", "timer", "event:go", ready_at=T0 + 5)
        await send(store, message(now=T0 + 900))
        assert (await row(store))["ready_at"] == T0 + 5

    @rule
    async def test_a_stuck_run_buffers_everything(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        await commit_one(store, commit(next={"kind": "stuck", "note": "why"}))
        assert (await send(store, message()))[0] == "buffered"
        assert (await send(store, message(message_id="c", kind="cancel", name="")))[0] == "buffered"
        assert (await row(store))["ready_at"] is None

    @rule
    async def test_a_pause_looks_into_the_inbox_again(self, store: Store) -> None:
        # The message arrives while its run is on the way to sleep: the wake-up is not lost.
        await store.create([new_run("a", owner="ann"), new_run("b", owner="ann")])
        await store.deliver([message("a"), message("b")])
        unseen = commit("a", next=waiting("event:go", ready_at=T0 + 10**9), at=T0 + 20)
        assert await commit_one(store, unseen) == {"kind": "applied", "due": True}
        seen = commit("b", next=waiting("event:other"), seen=1)
        assert await commit_one(store, seen) == APPLIED
        assert (await row(store, "a"))["ready_at"] == T0 + 20
        assert (await row(store, "b"))["ready_at"] is None
        (run,) = (await store.claim(claim(now=T0 + 20)))["runs"]
        assert (run["row"]["run_id"], run["was"], seqs(run["inbox"])) == ("a", "waiting", [1])

    @rule
    async def test_unread_messages_are_those_that_the_holder_has_not_seen(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann"), new_run("b", owner="ann"), new_run("c", owner="bob")])
        await store.create([new_run("d")])
        await store.deliver([message(name, f"m{n}") for name in "abcd" for n in range(2)])
        assert sorted((one["run_id"], one["seq"]) for one in await store.unread("ann", [])) == [
            ("a", 1),
            ("a", 2),
            ("b", 1),
            ("b", 2),
        ]
        await commit_one(store, commit("a", seen=1))
        await commit_one(store, commit("b", read=[read(2)], seen=0))
        assert sorted((one["run_id"], one["seq"]) for one in await store.unread("ann", [])) == [
            ("a", 2),
            ("b", 1),
        ]
        # What its driver was told of already need not be told again.
        told = await store.unread("ann", [("a", 2), ("b", 0), ("c", 0), ("nobody", 7)])
        assert [(one["run_id"], one["seq"]) for one in told] == [("b", 1)]
        assert list(await store.unread("nobody", [])) == []

    @rule
    async def test_what_is_unread_is_counted(self, store: Store) -> None:
        async def counts() -> tuple[int, int, int]:
            got = await row(store)
            return got["inbox_len"], got["unread"], got["unread_bytes"]

        await store.create([new_run("a", owner="ann")])
        for n, size in enumerate((5, 0, 30, 400)):
            await send(store, message(message_id=f"m{n}", payload=b"x" * size))
        await send(store, message(message_id="m3", payload=b"twice"))
        assert await counts() == (4, 4, 435)
        await commit_one(store, commit(read=[read(3), read(1, "wrong")], seen=4))
        assert await counts() == (4, 2, 400)
        await commit_one(store, commit(read=[read(3), read(1), read(9), read(4)]))
        assert await counts() == (4, 1, 0)
        await commit_one(store, commit(entries=[entry("")], next=finished()))
        assert await counts() == (4, 1, 0)

    @rule
    async def test_an_inbox_comes_in_pages(self, store: Store) -> None:
        await store.create([new_run("a"), new_run("b")])
        count = INBOX_PAGE + 1
        await store.deliver([message(message_id=f"m{n}", payload=b"") for n in range(count)])
        (run,) = (await store.claim(claim(run_id="a")))["runs"]
        assert (seqs(run["inbox"]), run["inbox_more"]) == (list(range(1, count)), True)
        page = await store.inbox("a", INBOX_PAGE)
        assert (seqs(page["messages"]), page["more"]) == ([count], False)
        page = await store.inbox("a", 1)
        assert (seqs(page["messages"]), page["more"]) == (list(range(2, count + 1)), False)
        assert len(await store.unread("bob", [])) == INBOX_PAGE
        assert seqs(await store.unread("bob", [("a", INBOX_PAGE)])) == [count]
        # Neither what was read nor what was set aside is in a page; what was seen is.
        used = commit(owner="bob", read=[read(2), read(3, "wrong")], seen=count)
        assert await commit_one(store, used) == APPLIED
        page = await store.inbox("a", 0)
        assert (seqs(page["messages"])[:3], len(page["messages"]), page["more"]) == (
            [1, 4, 5],
            count - 2,
            False,
        )
        for empty in (await store.inbox("a", count), await store.inbox("b", 0), await store.inbox("no", 0)):
            assert (list(empty["messages"]), empty["more"]) == ([], False)

    @rule
    async def test_a_page_has_no_more_than_so_many_bytes_but_always_a_message(self, store: Store) -> None:
        await store.create([new_run("a")])
        half = INBOX_PAGE_BYTES // 2
        sizes = (half, half, INBOX_PAGE_BYTES + 1, 1)
        for n, size in enumerate(sizes):
            await send(store, message(message_id=f"m{n}", payload=bytes(size)))
        (run,) = (await store.claim(claim()))["runs"]
        assert (seqs(run["inbox"]), run["inbox_more"]) == ([1, 2], True)
        pages = [
            (seqs(page["messages"]), page["more"]) for page in [await store.inbox("a", n) for n in (1, 2, 3)]
        ]
        assert pages == [([2], True), ([3], True), ([4], False)]

    @rule
    async def test_an_inbox_that_is_full_takes_cancellations_alone(self, store: Store) -> None:
        await pause(store, "a", "event:other", ready_at=T0 + 10**9)
        for part in range(MAX_UNREAD // 1_000):
            names = [f"m{part * 1_000 + n}" for n in range(1_000)]
            await store.deliver([message(message_id=name, payload=b"") for name in names])
        before = await row(store)
        assert before["unread"] == MAX_UNREAD
        assert await send(store, message(message_id="more", name="other")) == ("full", None, None)
        assert await row(store) == before
        assert (await send(store, message(message_id="m7")))[0] == "duplicate"
        assert (await send(store, message(message_id="c", kind="cancel", name="")))[0] == "delivered"
        (run,) = (await store.claim(claim(now=T0 + 9)))["runs"]
        assert run["inbox_more"]
        two = commit(owner="bob", epoch=2, read=[read(1), read(2, "wrong")], seen=2)
        assert await commit_one(store, two) == APPLIED
        results = [(await send(store, message(message_id=f"n{n}")))[0] for n in range(2)]
        # The cancellation took a place as well.
        assert results == ["buffered", "full"]

    @rule
    async def test_an_inbox_is_full_of_bytes_too(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        large = bytes(MAX_UNREAD_BYTES // 8)
        for n in range(8):
            assert (await send(store, message(message_id=f"m{n}", payload=large)))[0] == "buffered"
        assert (await send(store, message(message_id="x", payload=b"1")))[0] == "full"
        assert (await send(store, message(message_id="x", payload=b"")))[0] == "buffered"
        cancel = message(message_id="c", kind="cancel", name="", payload=b"why")
        assert (await send(store, cancel))[0] == "delivered"
        await commit_one(store, commit(read=[read(1)], seen=1))
        assert (await send(store, message(message_id="y", payload=b"1")))[0] == "buffered"

    @rule
    async def test_receipts_tell_what_became_of_messages(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann"), new_run("b")])
        await store.deliver([message(message_id=f"m{n}") for n in range(5)])
        used = commit(
            read=[read(1, reply=b"\x00yes"), read(2), read(3, "too late"), read(4, reply=b"")], seen=5
        )
        assert await commit_one(store, used) == APPLIED
        asked = [("a", f"m{n}") for n in (4, 0, 1, 2, 3, 9)] + [("b", "m0"), ("nobody", "m0"), ("a", "m0")]
        answered = {"kind": "consumed", "reply": b"\x00yes"}
        told = [
            {"kind": "unread"},
            answered,
            {"kind": "consumed", "reply": None},
            {"kind": "set_aside", "reason": "too late"},
            {"kind": "consumed", "reply": b""},
            None,
            None,
            None,
            answered,
        ]
        assert list(await store.receipts(asked)) == told
        # What was answered once stays answered, also when the run has ended.
        again = commit(read=[read(1, reply=b"no"), read(2, "wrong")], entries=[entry("")], next=finished())
        assert await commit_one(store, again) == APPLIED
        assert list(await store.receipts(asked)) == told

    @rule
    async def test_bad_messages_are_refused_before_anything_is_kept(self, store: Store) -> None:
        await store.create([new_run("a")])
        for bad in (message(message_id=""), message(message_id="a\x1f"), message(name="a\0b")):
            assert await raises(InvalidArgument, store.deliver([message(message_id="fine"), bad]))
        assert (await row(store))["inbox_len"] == 0
