"""`duramen versions`, `duramen check` and `duramen runs retry --version` as processes on a real store."""

from pathlib import Path

CHANGED = """
import os
from duramen import Context, Runtime, workflow

@workflow
async def wait(ctx: Context) -> str:
    if ctx.patched("greeting"):
        await ctx.step("greet", str, "hello")
    for number in range(3):
        await ctx.stream("log").write({"number": number})
    return await ctx.wait_for_event("word", str)

@workflow
async def sleep(ctx: Context) -> None:
    await ctx.wait_for_event("morning")

@workflow(version="2")
async def decide(ctx: Context) -> bool:
    return (await ctx.approve("Go?")).approved

runtime = Runtime(os.environ["SHOP_URL"], workflows=[wait, sleep, decide, "nowhere:add"], work={})
"""


def changed(folder: Path) -> str:
    (folder / "changed.py").write_text(CHANGED)
    return "changed:runtime"


def test_versions_of_a_store_are_told_with_who_serves_them(duramen) -> None:
    told = duramen("versions")
    assert told.code == 1
    assert "no live process serves it" in told.out
    assert "4 open runs need versions that no process that is alive serves: add 1, decide 1" in told.err
    found = {one["workflow"]: one for one in duramen("versions", "--json").json}
    assert sorted(found) == ["add", "decide", "sleep", "wait"]
    assert (found["add"]["counts"], found["add"]["served"]) == ({"queued": 1}, False)
    assert found["wait"]["oldest"]["waiting"]["run_id"] == "wait:1"
    assert [one["workflow"] for one in duramen("versions", "--workflow", "add", "--json").json] == ["add"]


def test_versions_of_an_application_say_what_it_lacks(duramen, folder: Path) -> None:
    told = duramen("versions", "shop:runtime")
    assert (told.code, told.err) == (0, "")
    assert "new runs get it" in told.out
    told = duramen("versions", changed(folder))
    assert told.code == 1
    assert "nowhere:add cannot be loaded: ModuleNotFoundError" in told.err
    assert "2 open runs need versions that nothing in this application serves: add 1, decide 1" in told.err
    assert "not in this application" in told.out


def test_patches_are_told(duramen, folder: Path) -> None:
    assert "no open run has the mark" in duramen("versions", "--patches").out
    report = duramen("versions", changed(folder), "--patches", "--workflow", "wait", "--json").json
    (found,) = report["patches"]
    assert (found["patch"], found["older"], found["retirable"]) == ("greeting", 1, False)
    told = duramen("versions", changed(folder), "--patches")
    assert told.code == 0
    assert "greeting" in told.out
    assert "wait:1" in told.out


def test_a_check_says_what_would_not_go_on(duramen, folder: Path) -> None:
    fine = duramen("check", "shop:runtime")
    assert (fine.code, fine.out, fine.err) == (0, "4 open runs checked, 4 fit this code\n", "")
    before = duramen("runs", "list", "--json").json
    bad = duramen("check", changed(folder))
    assert bad.code == 1
    assert "4 open runs checked, 1 fit this code" in bad.out
    assert "sleep:1" in bad.out
    assert "the code no longer fits the journal" in bad.out
    found = duramen("check", changed(folder), "--json").json
    assert {one["run_id"]: one["kind"] for one in found["problems"]} == {
        "sleep:1": "stuck",
        "decide:1": "no_code",
        "add:2": "no_code",
    }
    assert (found["ok"], found["complete"], found["counts"]) == (False, True, {"stuck": 1, "no_code": 2})
    assert duramen("check", changed(folder), "--workflow", "wait").code == 0
    assert duramen("check", "shop:runtime", "--sample", "1", "--json").json["checked"] >= 1
    assert duramen("runs", "list", "--json").json == before


def test_retry_into_another_version(duramen) -> None:
    assert duramen("runs", "retry").code == 2
    assert duramen("runs", "retry", "wait:1", "--status", "waiting").code == 2
    assert duramen("runs", "retry", "wait:1", "--workflow", "wait").code == 2
    told = duramen("runs", "retry", "wait:1", "--version", "2")
    assert (told.code, told.out) == (0, "queued again: wait:1\n")
    assert "no process that is alive serves wait 2: it waits for one" in told.err
    view = duramen("runs", "show", "wait:1", "--json").json
    assert (view["version"], view["status"]) == ("2", "queued")


def test_retry_in_bulk(duramen) -> None:
    told = duramen("runs", "retry", "--status", "waiting", "--status", "failed", "--version", "9")
    assert (told.code, told.out) == (0, "queued again: 4 runs\n")
    assert duramen("runs", "list", "--version", "9", "--count").out == "4\n"
    told = duramen("runs", "retry", "--status", "queued", "--workflow", "add", "--json")
    assert told.code == 1
    assert told.json["done"] == 0
    assert list(told.json["why_not"]) == ["add:2"]
    told = duramen("runs", "retry", "--status", "queued", "--version", "8", "--limit", "2", "--json")
    assert told.json == {"done": 2, "why_not": {}}
    told = duramen("runs", "retry", "--status", "queued", "--from-version", "8", "--version", "7")
    assert told.out == "queued again: 2 runs\n"


def test_a_stuck_run_is_shown_with_the_place_where_it_parts_from_the_code(duramen, folder: Path) -> None:
    changed(folder)
    (folder / "sound.py").write_text(CHANGED.replace(', "nowhere:add"], work={}', "]"))
    duramen("runs", "retry", "sleep:1", "--version", "9")
    duramen("runs", "retry", "sleep:1", "--version", "1")
    assert duramen("sweep", "sound:runtime").code == 1
    view = duramen("runs", "show", "sleep:1", "--json").json
    assert (view["status"], view["difference"]["index"], view["difference"]["version"]) == ("stuck", 1, "1")
    card = duramen("runs", "show", "sleep:1").out
    assert "the code no longer fits the journal at entry 1, under version 1" in card
    assert ">    1  wait_opened" in card
    assert "to do" in card
