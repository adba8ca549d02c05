"""`duramen runs …`, `signal` and `approve`, run as processes on a real store."""

import json
from pathlib import Path

from duramen._runtime.history import read_history
from tests.cli.kinds import on_sqlite


def test_list_as_a_table_and_as_json(duramen) -> None:
    table = duramen("runs", "list")
    assert table.code == 0
    assert "wait:1" in table.out
    assert "event:word" in table.out
    assert "ago" in table.out
    found = duramen("runs", "list", "--json").json["runs"]
    assert {run["run_id"]: run["status"] for run in found} == {
        "add:1": "completed",
        "wait:1": "waiting",
        "decide:1": "waiting",
        "fail:1": "failed",
        "sleep:1": "waiting",
        "add:2": "queued",
    }


def test_list_filters_pages_and_counts(duramen) -> None:
    def ids(*arguments: str) -> list[str]:
        return [run["run_id"] for run in duramen("runs", "list", "--json", *arguments).json["runs"]]

    assert ids("--status", "failed", "--status", "queued") == ["add:2", "fail:1"]
    assert ids("--tag", "math") == ["add:1"]
    assert ids("--waiting-for", "word") == ["wait:1"]
    assert ids("--prefix", "add:", "--workflow", "add") == ["add:2", "add:1"]
    first = duramen("runs", "list", "--json", "--limit", "4").json
    rest = duramen("runs", "list", "--json", "--limit", "4", "--cursor", first["cursor"]).json
    assert (len(first["runs"]), len(rest["runs"]), rest["cursor"]) == (4, 2, None)
    assert duramen("runs", "list", "--count").out == "6\n"
    assert duramen("runs", "list", "--count", "--since", "1", "--json").json == {"count": 6}


def test_show(duramen) -> None:
    card = duramen("runs", "show", "fail:1")
    assert card.code == 0
    assert "ZeroDivisionError" in card.out
    view = duramen("runs", "show", "add:1", "--json").json
    assert (view["status"], view["input"], view["output"], view["tags"]) == (
        "completed",
        [1, 2, 3],
        6,
        ["math"],
    )


def test_stream(duramen) -> None:
    assert duramen("runs", "stream", "wait:1", "log").out == '{"number": 0}\n{"number": 1}\n{"number": 2}\n'
    assert duramen("runs", "stream", "wait:1", "log", "--from-seq", "3").out == '{"number": 2}\n'
    item = duramen("runs", "stream", "wait:1", "log", "--from-seq", "2", "--json").out.splitlines()[0]
    found = json.loads(item)
    assert (found["seq"], found["index"], found["value"], found["op"]) == (2, 1, {"number": 1}, None)
    nothing = duramen("runs", "stream", "add:1", "log", "--follow")
    assert (nothing.code, nothing.out) == (0, "")
    unknown = duramen("runs", "stream", "nobody", "log")
    assert unknown.code != 0
    assert "nobody" in unknown.err


def test_timeline(duramen) -> None:
    assert "━" in duramen("runs", "timeline", "add:1").out
    kinds = [entry["kind"] for entry in duramen("runs", "timeline", "add:1", "--json").json]
    assert kinds == ["run_created", "step_completed", "run_finished"]


def test_export(duramen, folder: Path) -> None:
    history = duramen("runs", "export", "fail:1").json
    assert (history["run"]["status"], history["journal"][-1]["kind"]) == ("failed", "run_failed")
    assert read_history(history) == history
    assert duramen("runs", "export", "fail:1", "-o", "history.json").out == ""
    assert read_history(folder / "history.json") == history
    refused = duramen("runs", "export", "fail:1", "-o", "nowhere/history.json")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == "duramen: nowhere/history.json cannot be written: No such file or directory\n"
    assert duramen("runs", "export", "nobody").code == 3


def test_watch_says_by_its_code_how_the_run_ended(duramen) -> None:
    assert duramen("runs", "watch", "add:1").code == 0
    assert duramen("runs", "watch", "fail:1").code == 1
    lines = duramen("runs", "watch", "add:1", "--json").out.splitlines()
    assert [json.loads(line)["index"] for line in lines] == [0, 1, 2]


def test_signal(duramen) -> None:
    assert duramen("signal", "wait:1", "word", '"hello"', "--id", "s1").out.startswith("delivered")
    assert (
        duramen("signal", "wait:1", "word", '"hello"', "--id", "s1", "--json").json["result"] == "duplicate"
    )
    ended = duramen("signal", "add:1", "word")
    assert (ended.code, ended.err) == (1, "duramen: run 'add:1' has ended: nothing was kept\n")
    assert duramen("signal", "nobody", "word").code == 3
    bad = duramen("signal", "wait:1", "word", "hello")
    assert bad.code == 2
    assert "is not JSON" in bad.err
    assert duramen("signal", "wait:1", "__timer").code == 2
    duramen("sweep", "shop:runtime")
    assert duramen("runs", "show", "wait:1", "--json").json["output"] == "hello"


def test_approve(duramen) -> None:
    assert duramen("approve", "decide:1", "--reject", "--by", "me").code == 0
    other = duramen("approve", "decide:1")
    assert other.code == 1
    assert "already decided" in other.err
    assert duramen("approve", "add:1").code == 2
    assert duramen("approve", "nobody").code == 3
    duramen("sweep", "shop:make")
    assert duramen("runs", "show", "decide:1", "--json").json["output"] is False


def test_cancel_terminate_retry_delete(duramen) -> None:
    assert duramen("runs", "cancel", "sleep:1", "--reason", "no time").code == 0
    duramen("sweep", "shop:runtime")
    cancelled = duramen("runs", "show", "sleep:1", "--json").json
    assert (cancelled["status"], cancelled["reason"]) == ("cancelled", "no time")
    assert duramen("runs", "terminate", "wait:1").code == 0
    again = duramen("runs", "terminate", "wait:1", "--json")
    assert (again.code, again.json["done"]) == (1, False)
    assert duramen("runs", "retry", "fail:1").code == 0
    assert duramen("runs", "retry", "add:1").code == 1
    assert duramen("runs", "show", "fail:1", "--json").json["status"] == "queued"
    assert duramen("runs", "delete", "decide:1").code == 1
    assert duramen("runs", "delete", "decide:1", "--force").code == 0
    for verb in ("show", "timeline", "watch", "cancel", "terminate", "retry", "delete"):
        gone = duramen("runs", verb, "decide:1")
        assert (gone.code, gone.out) == (3, ""), verb
        assert gone.err.startswith("duramen: there is no run 'decide:1'")
        assert gone.err.count("\n") == 1


def test_fork_and_diff(duramen) -> None:
    made = duramen("runs", "fork", "fail:1", "--input", "4", "--new-run-id", "fail:4", "--json")
    assert made.json == {"run_id": "fail:4", "created": True, "fork_of": "fail:1"}
    assert "it was there already" in duramen("runs", "fork", "fail:1", "--new-run-id", "fail:4").out
    what_if = ("runs", "fork", "add:1", "--override", "sum=7", "--new-run-id", "add:7")
    assert duramen(*what_if).out == "forked: add:7\n"
    duramen("sweep", "shop:runtime")
    assert duramen("runs", "show", "fail:4", "--json").json["output"] == 0.25
    assert duramen("runs", "show", "add:7", "--json").json["output"] == 7
    found = duramen("runs", "diff", "add:1", "add:7")
    assert "they part at 'sum': completed 6, completed 7" in found.out
    assert "finished 7" in found.out
    told = duramen("runs", "diff", "add:1", "add:7", "--json").json
    assert (told["parting"]["op"], len(told["differences"])) == ("sum", 2)
    assert "do not differ" in duramen("runs", "diff", "add:1", "add:1").out
    for wrong in (
        ("--override", "sum"),
        ("--override", "sum=x"),
        ("--input", "x"),
        ("--from-operation", "s"),
    ):
        refused = duramen("runs", "fork", "add:1", *wrong)
        assert (refused.code, refused.err.count("\n")) == (2, 1), wrong
    assert duramen("runs", "fork", "nobody").code == 3
    assert duramen("runs", "diff", "add:1", "nobody").code == 3


@on_sqlite
def test_a_store_that_cannot_be_used(duramen, folder: Path) -> None:
    missing = duramen("runs", "list", store="sqlite:///missing.db")
    assert missing.code == 4
    assert "missing.db" in missing.err
    assert not (folder / "missing.db").exists()
    (folder / "text.db").write_text("this is not a database, and it is long enough to be looked at" * 20)
    corrupt = duramen("runs", "list", store="sqlite:///text.db")
    assert (corrupt.code, corrupt.err.count("\n")) == (4, 1)
    assert duramen("runs", "list", store="mysql://u:secret@h/d").code == 2
    none = duramen("runs", "list", store=None)
    assert none.code == 2
    assert "--store" in none.err
