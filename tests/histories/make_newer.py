"""Makes the frozen histories of a newer build: `python tests/histories/make_newer.py [--again]`.

They are what builds of today must leave alone, or pass over, when a later one has written them. The newer
build is this source with the feature `newer-format` (see tests/versions/builds.py), which is built for it;
what not even that has yet, a meta field and a kind, is put into what it wrote.
"""

import argparse
import asyncio
import json
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

NEWER = HERE / "newer"
NAMES = ("recorded_values", "meta_field", "kind")


def add_meta_field(history: dict[str, Any]) -> None:
    """A fact that older builds may pass over: the encoding stays what it was."""
    for entry in history["journal"]:
        if entry["kind"] == "wait_opened":
            meta = {**json.loads(entry["meta"]), "place": {"shard": 3}}
            entry["meta"] = json.dumps(meta, separators=(",", ":"))


def add_kind(history: dict[str, Any]) -> None:
    """A kind that they must understand, or leave the run alone."""
    last = history["journal"][-1]
    entry = {
        "encoding": 2,
        "kind": "answer_streamed",
        "op": "answer-1",
        "meta": '{"chunks":[1,2]}',
        "payload": '"so far"',
    }
    history["journal"].insert(1, {**entry, "at": last["at"]})


async def make() -> dict[str, Any]:
    """Play the runs, and put into them what is missing."""
    import duramen
    from tests.histories.case import CASES
    from tests.histories.make import anywhere
    from tests.histories.make import make as play

    made: dict[str, Any] = {}
    for name, played, add in (
        ("recorded_values", "values", None),
        ("meta_field", "event_awaited", add_meta_field),
        ("kind", "event_awaited", add_kind),
    ):
        history = await play(CASES[played])
        history["run"]["run_id"] = name
        if add is not None:
            add(history)
        made[name] = json.loads(anywhere(json.dumps(history)))
    print("made by the package in", Path(duramen.__file__).parent)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--again", action="store_true", help="make those that are there, too")
    again = parser.parse_args().again
    logging.disable()
    wanted = [name for name in NAMES if again or not (NEWER / f"{name}.json").exists()]
    if not wanted:
        return
    from duramen._bridge import ENCODING

    if ENCODING == 1:
        from tests.versions.builds import newer_package

        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "PYTHONPATH": str(newer_package(Path(folder)))}
            subprocess.run([sys.executable, *sys.argv], env=environment, check=True)
        return
    made = asyncio.run(make())
    for name in wanted:
        text = json.dumps(made[name], indent=1, ensure_ascii=False)
        (NEWER / f"{name}.json").write_text(f"{text}\n")


if __name__ == "__main__":
    main()
