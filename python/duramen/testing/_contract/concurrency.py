"""Several at once: nothing is done twice, and nothing falls between two chairs."""

# ruff: noqa: S101 - asserting is what rules do

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .support import (
    APPLIED,
    T0,
    Rules,
    beat,
    claim,
    commit,
    commit_insisting,
    commit_one,
    entry,
    ids,
    journal,
    length,
    live,
    message,
    new_run,
    row,
    rule,
    rule_of_place,
    send,
    send_insisting,
    seqs,
    waiting,
)

if TYPE_CHECKING:
    from pathlib import Path

    from duramen.store import Store


class ConcurrencyRules(Rules):
    """Several at once: nothing is done twice, and nothing falls between two chairs."""

    @rule
    async def test_an_id_is_created_once(self, store: Store) -> None:
        news = [new_run("a", input=b"%d" % n) for n in range(20)]
        answers = await asyncio.gather(*(store.create([new]) for new in news))
        assert sorted(one["kind"] for (one,) in answers) == ["created"] + ["exists"] * 19
        winner = next(n for n, (one,) in enumerate(answers) if one["kind"] == "created")
        assert await journal(store) == [("", b"%d" % winner)]

    @rule
    async def test_a_run_is_claimed_once(self, store: Store) -> None:
        names = [f"r{n:02}" for n in range(60)]
        await store.create([new_run(name) for name in names])
        await live(store, *(f"d{n}" for n in range(20)))
        claims = await asyncio.gather(*(store.claim(claim(f"d{n}", limit=7)) for n in range(20)))
        taken = [run_id for claimed in claims for run_id in ids(claimed)]
        assert sorted(taken) == names
        for claimed in claims:
            for run in claimed["runs"]:
                assert run["row"]["epoch"] == 1
                assert (await row(store, run["row"]["run_id"]))["owner"] == run["row"]["owner"]

    @rule
    async def test_a_length_is_written_once(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        for reached in range(1, 6):
            outcomes = await asyncio.gather(
                *(commit_one(store, commit(length=reached, entries=[entry(f"s{n}")])) for n in range(8))
            )
            assert sorted(outcome["kind"] for outcome in outcomes) == ["applied"] + ["fenced"] * 7
        assert len(await journal(store)) == 6

    @rule
    async def test_messages_at_once_are_all_kept_once_and_numbered_without_a_gap(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        await asyncio.gather(*(store.deliver([message(message_id=f"m{n % 25}")]) for n in range(50)))
        assert sorted(seqs(await store.unread("ann", []))) == list(range(1, 26))
        assert (await row(store))["inbox_len"] == 25

    @rule
    async def test_no_wake_up_is_lost_between_a_pause_and_a_delivery(self, store: Store) -> None:
        for n in range(40):
            run_id = f"r{n}"
            await store.create([new_run(run_id, owner="ann", workflow="loop")])
            pausing = commit_insisting(store, commit(run_id, next=waiting("event:go")))
            sending = send_insisting(store, message(run_id))
            both = [pausing, sending] if n % 2 else [sending, pausing]
            await asyncio.gather(*both)
            assert (await row(store, run_id))["ready_at"] is not None, (
                "the run sleeps and its message lies there"
            )

    @rule
    async def test_a_late_commit_and_a_reclaim_never_both_win(self, store: Store) -> None:
        await live(store, "cyd", lease=10)
        await store.create([new_run(f"r{n}", owner="cyd") for n in range(20)])
        for n in range(20):
            run_id = f"r{n}"
            wrote, claimed = await asyncio.gather(
                commit_one(store, commit(run_id, "cyd", entries=[entry("s")])),
                store.claim(claim("bob", now=T0 + 10, run_id=run_id)),
            )
            while not claimed["runs"]:
                # The commit held the run at that moment: a claim waits for nobody.
                claimed = await store.claim(claim("bob", now=T0 + 10, run_id=run_id))
            (run,) = claimed["runs"]
            assert run["journal"] is not None
            assert len(run["journal"]) == run["row"]["journal_len"] == (2 if wrote == APPLIED else 1)
            assert (await row(store, run_id))["journal_len"] == run["row"]["journal_len"]

    @rule
    async def test_a_renewal_and_a_claim_of_the_runs_never_both_win(self, store: Store) -> None:
        for n in range(20):
            driver, run_id = f"d{n}", f"r{n}"
            await live(store, driver, lease=10)
            await store.create([new_run(run_id, owner=driver)])
            renewing = beat(store, driver, 10, T0 + 9)
            claiming = store.claim(claim("bob", now=T0 + 10, run_id=run_id))
            if n % 2:
                claimed, renewed = await asyncio.gather(claiming, renewing)
            else:
                renewed, claimed = await asyncio.gather(renewing, claiming)
            assert renewed["alive"] == (ids(claimed) == []), "two believe that the run is theirs"

    @rule
    async def test_a_successor_and_a_claim_never_both_get_a_run(self, store: Store) -> None:
        for n in range(20):
            driver, run_ids = f"d{n}", [f"r{n}a", f"r{n}b"]
            await live(store, driver, lease=10)
            await store.create([new_run(run_id, owner=driver) for run_id in run_ids])
            succeeding = beat(store, f"{driver}-2", 10**9, T0 + 11, succeeds=driver)
            claiming = store.claim(claim("bob", now=T0 + 10, due="recovery"))
            if n % 2:
                claimed, succeeded = await asyncio.gather(claiming, succeeding)
            else:
                succeeded, claimed = await asyncio.gather(succeeding, claiming)
            inherited = [run_id for run_id, _ in succeeded["inherited"]]
            assert sorted(inherited + ids(claimed)) == run_ids
            for run_id in run_ids:
                owner = f"{driver}-2" if run_id in inherited else "bob"
                assert (await row(store, run_id))["owner"] == owner

    @rule
    async def test_a_call_that_is_given_up_takes_place_whole_or_not_at_all(self, store: Store) -> None:
        names = [f"r{n:02}" for n in range(20)]
        await store.create([new_run(name, owner="ann") for name in names])
        for n, name in enumerate(names):
            asked = asyncio.ensure_future(store.commit([commit(name, entries=[entry("s"), entry("t")])]))
            for _ in range(n):
                await asyncio.sleep(0)
            asked.cancel()
            await asyncio.wait([asked])
        # Whatever became of it, the store goes on: one of the two commits at length 1 took place.
        for name in names:
            outcome = await commit_one(store, commit(name, entries=[entry("u")]))
            found = len(await journal(store, name))
            assert found == await length(store, name) == (2 if outcome == APPLIED else 3)

    @rule_of_place
    async def test_two_stores_of_one_place_share_its_runs(self, place: Path) -> None:
        if not self.shared:
            return
        one, two = await self.open_store(place), await self.open_store(place)
        await asyncio.gather(one.migrate(), two.migrate())
        await live(one, "ann", *(f"d{n}" for n in range(6)))
        names = [f"r{n:02}" for n in range(40)]
        created = await asyncio.gather(
            *(store.create([new_run(name) for name in names]) for store in (one, two))
        )
        for pair in zip(*created, strict=True):
            assert sorted(answer["kind"] for answer in pair) == ["created", "exists"]
        claims = await asyncio.gather(
            *(store.claim(claim(f"d{n}", limit=5)) for n in range(6) for store in (one, two))
        )
        taken = [run_id for claimed in claims for run_id in ids(claimed)]
        assert sorted(taken) == names
        await one.create([new_run("a", owner="ann")])
        assert (await send(two, message())) == ("buffered", None, "ann")
        outcomes = await asyncio.gather(
            *(commit_one(store, commit(entries=[entry("s")])) for store in (one, two))
        )
        assert sorted(outcome["kind"] for outcome in outcomes) == ["applied", "fenced"]
        await one.close()
        assert len(await journal(two)) == 2
        await two.close()
