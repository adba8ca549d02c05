"""Streams: numbered without a gap in the order in which items become visible, and kept with their run."""

# ruff: noqa: S101 - asserting is what rules do

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from .interventions import delete, intervene, terminate
from .support import (
    APPLIED,
    FENCED,
    OTHER_SEED,
    SEED,
    T0,
    Rules,
    claim,
    commit,
    commit_one,
    continued,
    entry,
    finished,
    new_run,
    rule,
    waiting,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from duramen.store import Appended, Store, StreamAppend, StreamItem, StreamPage, StreamWrite


def written(
    payload: bytes = b"item",
    stream: str = "s",
    *,
    writer: str = "step",
    index: int = 0,
    attempt: int = 1,
    keep: int | None = None,
) -> StreamWrite:
    """An item that is to be kept."""
    return {
        "stream": stream,
        "writer": writer,
        "index": index,
        "attempt": attempt,
        "keep": keep,
        "payload": payload,
        "at": T0 + 3,
    }


def numbers(count: int, start: int = 0, **more: Any) -> list[StreamWrite]:
    """Items with their numbers as payloads."""
    return [written(b"%d" % n, index=n, **more) for n in range(start, start + count)]


async def append(
    store: Store,
    items: Sequence[StreamWrite],
    run_id: str = "a",
    owner: str = "ann",
    epoch: int = 1,
    seed: Sequence[int] = SEED,
) -> Appended:
    """Append items as a step does."""
    one: StreamAppend = {"run_id": run_id, "seed": seed, "owner": owner, "epoch": epoch, "items": items}
    (answer,) = await store.append([one])
    return answer


async def page(
    store: Store, run_id: str = "a", stream: str = "s", *, start: int = 0, limit: int = 100
) -> StreamPage:
    """A page of a run that exists."""
    found = await store.stream({"run_id": run_id, "stream": stream, "start": start, "limit": limit})
    assert found is not None
    return found


async def kept(store: Store, run_id: str = "a", stream: str = "s", **ask: int) -> list[StreamItem]:
    """The items of a page."""
    return list((await page(store, run_id, stream, **ask))["items"])


async def until_applied(call: Callable[[], Awaitable[Any]]) -> None:
    """Repeat what others are in the way of, which they may be for a moment."""
    while (answer := await call())["kind"] == "blocked":
        pass
    assert answer["kind"] == "applied"


def told(items: Sequence[StreamItem]) -> str:
    """Items as numbers and payloads."""
    return " ".join(f"{item['seq']}={item['payload'].decode()}" for item in items)


class StreamRules(Rules):
    """Streams: numbered without a gap in the order in which items become visible, and kept with their run."""

    @rule
    async def test_items_of_commits_and_appends_have_the_next_numbers(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        first = [written(b"\x00\xff", writer="", attempt=0), written(b"other", "t", writer="")]
        first.append(written(b"", writer="", index=1, attempt=0))
        three = [entry("s"), entry("t"), entry("u")]
        assert await commit_one(store, commit(entries=three, written=first)) == APPLIED
        assert await append(store, [written(b"3"), written(b"4", index=1)]) == {"kind": "applied"}
        more = [written(b"5", writer="w##2", index=7, attempt=9)]
        assert await commit_one(store, commit(length=4, entries=[entry("v")], written=more)) == APPLIED
        assert [item["seq"] for item in await kept(store)] == [1, 2, 3, 4, 5]
        found = await kept(store)
        assert found[0] == {
            "seq": 1,
            "writer": "",
            "index": 0,
            "attempt": 0,
            "at": T0 + 3,
            "payload": b"\x00\xff",
        }
        assert found[4] == {
            "seq": 5,
            "writer": "w##2",
            "index": 7,
            "attempt": 9,
            "at": T0 + 3,
            "payload": b"5",
        }
        assert told(await kept(store, stream="t")) == "1=other"

    @rule
    async def test_pages_begin_where_they_are_asked_to_and_are_no_longer(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann"), new_run("b", owner="ann")])
        assert await append(store, numbers(5)) == {"kind": "applied"}
        assert await append(store, numbers(1), run_id="b") == {"kind": "applied"}
        assert told(await kept(store, limit=2)) == "1=0 2=1"
        assert told(await kept(store, start=3, limit=2)) == "3=2 4=3"
        assert told(await kept(store, start=5)) == "5=4"
        assert await kept(store, start=6) == []
        assert await kept(store, start=2**63 - 1) == []
        assert await kept(store, stream="S") == []
        assert await store.stream({"run_id": "nobody", "stream": "s", "start": 0, "limit": 1}) is None

    @rule
    async def test_a_page_is_not_too_heavy(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        heavy = bytes(3 << 20)
        for number in range(3):
            assert await append(store, [written(heavy, index=number)]) == {"kind": "applied"}
        assert await append(store, [written(bytes(5 << 20))]) == {"kind": "applied"}
        assert [item["seq"] for item in await kept(store)] == [1]
        assert [item["seq"] for item in await kept(store, start=4)] == [4]

    @rule
    async def test_a_page_says_where_its_run_stands(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        found = await page(store)
        assert (found["status"], bytes(found["seed"]), found["items"]) == ("running", bytes(SEED), [])
        end = commit(entries=[entry("s")], written=numbers(1), next=finished())
        assert await commit_one(store, end) == APPLIED
        found = await page(store)
        assert (found["status"], told(found["items"])) == ("completed", "1=0")

    @rule
    async def test_only_the_driver_of_a_running_run_appends(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann"), new_run("b")])
        items = numbers(1)
        assert await append(store, items, owner="bob") == FENCED
        assert await append(store, items, epoch=2) == FENCED
        assert await append(store, items, epoch=0) == FENCED
        assert await append(store, items, seed=OTHER_SEED) == FENCED
        assert await append(store, items, run_id="b") == FENCED
        assert await append(store, items, run_id="nobody") == FENCED
        # However long the journal is by now.
        assert await commit_one(store, commit(entries=[entry("s")])) == APPLIED
        assert await append(store, items) == {"kind": "applied"}
        paused = commit(length=2, entries=[entry("t")], next=waiting("event:go", ready_at=T0))
        assert await commit_one(store, paused) == APPLIED
        assert await append(store, items) == FENCED
        assert [run["row"]["run_id"] for run in (await store.claim(claim("bob", run_id="a")))["runs"]] == [
            "a"
        ]
        assert await append(store, items) == FENCED
        assert await append(store, items, owner="bob", epoch=2) == {"kind": "applied"}
        assert await intervene(store, terminate("a")) == "done"
        assert await append(store, items, owner="bob", epoch=2) == FENCED
        assert [item["seq"] for item in await kept(store)] == [1, 2]

    @rule
    async def test_what_is_refused_is_in_no_stream(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        late = commit(owner="bob", entries=[entry("s")], written=numbers(1))
        assert await commit_one(store, late) == FENCED
        assert (await commit_one(store, commit(written=numbers(1))))["kind"] == "rejected"
        more = commit(entries=[entry("s")], written=numbers(2))
        assert (await commit_one(store, more))["kind"] == "rejected"
        two = [entry("s"), entry("t")]
        for name in ("", "x" * 256, "a\x1fb"):
            bad = [written(), written(stream=name)]
            assert (await append(store, bad))["kind"] == "rejected"
            assert (await commit_one(store, commit(entries=two, written=bad)))["kind"] == "rejected"
        assert (await append(store, numbers(10_001)))["kind"] == "rejected"
        assert await kept(store) == []
        assert await append(store, numbers(10_000)) == {"kind": "applied"}
        assert told(await kept(store, start=9_999)) == "9999=9998 10000=9999"

    @rule
    async def test_elements_of_a_batch_are_answered_one_by_one(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann"), new_run("b", owner="ann")])

        def one(run_id: str, owner: str, items: list[StreamWrite]) -> StreamAppend:
            return {"run_id": run_id, "seed": SEED, "owner": owner, "epoch": 1, "items": items}

        batch = [
            one("a", "ann", numbers(2)),
            one("a", "bob", numbers(1)),
            one("b", "ann", [written(stream="")]),
            one("a", "ann", numbers(1, 2)),
            one("b", "ann", []),
            one("b", "ann", numbers(1)),
        ]
        kinds = [answer["kind"] for answer in await store.append(batch)]
        assert kinds == ["applied", "fenced", "rejected", "applied", "applied", "applied"]
        assert told(await kept(store)) == "1=0 2=1 3=2"
        assert told(await kept(store, "b")) == "1=0"
        assert await store.append([]) == []

    @rule
    async def test_the_last_items_are_kept_and_numbers_go_on(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        assert await append(store, numbers(5)) == {"kind": "applied"}
        assert await append(store, numbers(1, 5, keep=3)) == {"kind": "applied"}
        assert told(await kept(store)) == "4=3 5=4 6=5"
        more = commit(entries=[entry(f"s{n}") for n in range(4)], written=numbers(4, 6, keep=1))
        assert await commit_one(store, more) == APPLIED
        assert told(await kept(store, start=1)) == "10=9"
        assert await append(store, [*numbers(2, 10), written(b"t", "t", keep=1)]) == {"kind": "applied"}
        assert told(await kept(store)) == "10=9 11=10 12=11"
        assert told(await kept(store, stream="t")) == "1=t"

    @rule
    async def test_a_long_stream_becomes_short_write_by_write(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        for _ in range(2):
            assert await append(store, numbers(10_000)) == {"kind": "applied"}
        assert await append(store, numbers(5)) == {"kind": "applied"}
        assert await append(store, numbers(1, keep=1)) == {"kind": "applied"}
        assert (await kept(store, limit=1))[0]["seq"] == 10_001
        assert await append(store, numbers(1, keep=1)) == {"kind": "applied"}
        assert (await kept(store, limit=1))[0]["seq"] == 20_001
        assert await append(store, numbers(1, keep=1)) == {"kind": "applied"}
        assert [item["seq"] for item in await kept(store)] == [20_008]

    @rule
    async def test_streams_stay_with_their_run_and_go_with_it(self, store: Store) -> None:
        await store.create([new_run(name, owner="ann") for name in ("a", "b")])
        last = entry("", kind="run_created")
        for run_id in "ab":
            one = commit(run_id, entries=[last], written=numbers(1), next=continued())
            assert await commit_one(store, one) == APPLIED
            assert told(await kept(store, run_id)) == "1=0"
        (again,) = (await store.claim(claim("bob", now=T0 + 1, run_id="a")))["runs"]
        assert await append(store, numbers(1, 1), owner="bob", epoch=again["row"]["epoch"]) == {
            "kind": "applied"
        }
        assert told(await kept(store)) == "1=0 2=1"
        assert await intervene(store, delete("a", force=True)) == "done"
        assert await store.stream({"run_id": "a", "stream": "s", "start": 0, "limit": 1}) is None
        assert told(await kept(store, "b")) == "1=0"
        # Nor do they come back with a new run of that id.
        await store.create([new_run("a", owner="ann")])
        assert await kept(store) == []

    @rule
    async def test_writers_at_once_leave_no_gap_and_nothing_behind_a_reader(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        writers, times = 4, 10

        async def write(writer: int) -> None:
            for time in range(times):
                items = numbers(2, 2 * time, writer=str(writer))
                await until_applied(lambda items=items: append(store, items))

        async def handler() -> None:
            for time in range(times):
                one = commit(length=1 + time, entries=[entry("s")], written=numbers(1, time, writer=""))
                await until_applied(lambda one=one: commit_one(store, one))

        seen: list[StreamItem] = []

        async def follow() -> None:
            while len(seen) < times * (2 * writers + 1):
                for item in await kept(store, start=len(seen) + 1, limit=3):
                    assert item["seq"] == len(seen) + 1
                    seen.append(item)
                await asyncio.sleep(0)

        await asyncio.gather(follow(), handler(), *(write(writer) for writer in range(writers)))
        for writer in ("", *map(str, range(writers))):
            mine = [item["index"] for item in seen if item["writer"] == writer]
            assert mine == list(range(times if writer == "" else 2 * times))
