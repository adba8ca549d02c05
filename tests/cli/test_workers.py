"""`duramen workers`: who drives the runs of a store."""

import asyncio
import os
from pathlib import Path

from duramen import Context, Runtime, workflow


@workflow
async def lasting(ctx: Context) -> str:
    return await ctx.step("last", last)


async def last() -> str:
    await asyncio.sleep(60)
    return "lasted"


def test_those_that_have_left_are_shown_when_asked_for(duramen) -> None:
    nobody = duramen("workers")
    assert (nobody.code, nobody.out) == (0, "no process drives runs here\n")
    assert duramen("workers", "--json").json == []
    (gone,) = duramen("workers", "--all", "--json").json
    assert gone["serves"] == ["add 1", "count 1", "decide 1", "fail 1", "sleep 1", "wait 1"]
    assert (gone["alive"], gone["runs"]) == (False, 0)
    assert gone["ended_at"]
    table = duramen("workers", "--all").out
    assert gone["label"] in table
    assert "ended" in table


def test_a_process_is_shown_with_what_it_has_in_hand(duramen, folder: Path, shop_url: str) -> None:
    url = f"sqlite:///{folder}/app.db" if shop_url.startswith("sqlite") else shop_url

    async def main() -> None:
        async with Runtime(url, workflows=[lasting], owner="till", shutdown_timeout=0.1) as runtime:
            await runtime.start(lasting, run_id="l")
            (worker,) = (await asyncio.to_thread(duramen, "workers", "--json")).json
            assert (worker["owner"], worker["serves"]) == (runtime.owner, ["lasting 1"])
            assert worker["label"].endswith(f":{os.getpid()}")
            assert (worker["alive"], worker["runs"], worker["ended_at"]) == (True, 1, None)
            table = (await asyncio.to_thread(duramen, "workers")).out
            assert worker["owner"] in table.replace("\n", "")
            assert "lease" in table
            card = (await asyncio.to_thread(duramen, "runs", "show", "l")).out
            assert "at least 1 entries" in card

    asyncio.run(main())
