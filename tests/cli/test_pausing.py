"""`duramen runs pause`, `resume` and `skip`."""

import asyncio
from pathlib import Path

from duramen import Context, Runtime, workflow
from tests.cli.kinds import on_sqlite


def test_one_run_and_all_that_options_find(duramen) -> None:
    said = duramen("runs", "pause", "wait:1", "--reason", "the bank is down", "--by", "ann")
    assert (said.code, said.out) == (0, "paused: wait:1\n")
    assert "ann: the bank is down" in duramen("runs", "show", "wait:1").out
    assert "paused" in duramen("runs", "list", "--status", "paused").out
    again = duramen("runs", "pause", "wait:1", "--json")
    assert (again.code, again.json["result"]) == (1, "already_paused")
    assert duramen("runs", "pause", "--prefix", "sleep:", "--json").json == {"count": 1}
    assert duramen("runs", "resume", "--workflow", "sleep").out == "resumed: 1\n"
    assert duramen("runs", "resume", "wait:1").out == "resumed: wait:1\n"
    assert duramen("runs", "list", "--status", "paused", "--count").out == "0\n"


@on_sqlite
def test_what_cannot_be_done_has_its_exit_code(duramen) -> None:
    assert duramen("runs", "pause", "nobody").code == 3
    assert duramen("runs", "pause", "add:1").code == 1
    assert duramen("runs", "resume", "add:2").code == 1
    assert duramen("runs", "pause").code == 2
    assert duramen("runs", "skip", "wait:1", "null").code == 1
    assert duramen("runs", "skip", "nobody", "null").code == 3
    assert duramen("runs", "skip", "wait:1", "{").code == 2


@on_sqlite
def test_a_step_is_skipped(duramen, folder: Path) -> None:
    url = f"sqlite:///{folder}/app.db"

    def broken() -> str:
        raise LookupError("no such account")

    @workflow
    async def paying(ctx: Context) -> str:
        return await ctx.step("charge", broken, on_exhausted="pause")

    async def pay() -> str:
        async with Runtime(url, workflows=[paying]) as runtime:
            return (await runtime.run(paying, run_id="pay:1")).kind

    async def end() -> str:
        async with Runtime(url, workflows=[paying]) as runtime:
            run = await runtime.start(paying, run_id="pay:1")
            return await run.result(timeout=10)

    assert asyncio.run(pay()) == "paused"
    assert "no such account" in duramen("runs", "show", "pay:1").out
    assert duramen("runs", "skip", "pay:1", '"by hand"').out == "skipped: pay:1\n"
    assert asyncio.run(end()) == "by hand"
