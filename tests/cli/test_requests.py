"""`duramen update` and `duramen query`, run as processes on a real store."""

import os
import subprocess
import sys
from pathlib import Path

APP = "shop:runtime"
COUNTING = """
import asyncio
from shop import count, runtime

async def main() -> None:
    async with runtime:
        await runtime.start(count, run_id="count:1")
        print("started", flush=True)
        await runtime.work(drain=0)

asyncio.run(main())
"""


def test_an_update_is_answered_by_the_worker_and_a_query_by_the_application(
    duramen, folder: Path, shop_url: str
) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", COUNTING],
        cwd=folder,
        env={**os.environ, "SHOP_URL": shop_url},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "started\n"
        assert duramen("update", "count:1", "more", "3", "--id", "u").out == "3\n"
        again = duramen("update", "count:1", "more", "3", "--id", "u", "--json").json
        assert again == {"run_id": "count:1", "answer": 3}
        refused = duramen("update", "count:1", "more", "0")
        assert refused.code == 1
        assert "was refused: count up" in refused.err
        assert duramen("query", "count:1", "counted", "2", "--app", APP).out == "6\n"
    finally:
        worker.kill()
        worker.communicate()


def test_what_cannot_be_asked_says_why(duramen) -> None:
    assert duramen("update", "nobody", "more", "1").code == 3
    assert duramen("update", "add:1", "more", "1").code == 1
    assert duramen("update", "wait:1", "more", "{").code == 2
    late = duramen("update", "wait:1", "more", "1", "--id", "u", "--timeout", "0")
    assert late.code == 1
    assert "update_id='u'" in late.err
    assert duramen("query", "nobody", "counted", "--app", APP).code == 3
    unknown = duramen("query", "wait:1", "counted", "--app", APP)
    assert unknown.code == 3
    assert "it answers none" in unknown.err
    assert duramen("query", "wait:1", "counted").code == 2
