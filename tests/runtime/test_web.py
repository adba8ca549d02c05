"""Runtimes in the processes of real web servers: who has the signals, and which loop is which."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from duramen import Runtime
from tests.runtime.workflows import ALL

ROOT = Path(__file__).parents[2]


class Server:
    """A uvicorn in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said = ""
        found = None
        while found is None:
            found = re.search(r"running on (http://\S+)", self.line())
        self.url = found[1]

    def line(self) -> str:
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        self.said += line
        assert line, self.said
        return line

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"{self.url}/{path}", timeout=30) as answer:
            return answer.read().decode()

    def end(self) -> str:
        """One SIGTERM, as from a process manager."""
        self.process.send_signal(signal.SIGTERM)
        _, rest = self.process.communicate(timeout=30)
        # uvicorn ends by the signal that it was sent.
        assert self.process.returncode in (0, -signal.SIGTERM), self.said + rest
        return self.said + rest


@contextmanager
def uvicorn(app: str, store: str, *options: str) -> Iterator[Server]:
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", f"tests.runtime.web_apps:{app}", "--port", "0", *options],
        cwd=ROOT,
        env={**os.environ, "WEB_APPS_STORE": store},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Server(process)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("app", ["app_that_works", "app_with_a_task"])
def test_one_sigterm_ends_the_server_and_gives_its_runs_back(tmp_path: Path, app: str) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"

    async def steps(runtime: Runtime, run_id: str) -> int:
        return len(await runtime.timeline(run_id))

    async def main() -> None:
        with uvicorn(app, url) as server:
            assert await asyncio.to_thread(server.get, "r") == "r"
            async with Runtime(url, workflows=ALL) as runtime:
                async with asyncio.timeout(30):
                    while await steps(runtime, "r") < 5:  # noqa: ASYNC110 - driven in another process
                        await asyncio.sleep(0.01)
                said = await asyncio.to_thread(server.end)
                assert "Application shutdown complete" in said
                assert "Traceback" not in said
                view = await runtime.get("r")
                # Given back, not left to a lease that has to end.
                assert view.status in {"waiting", "completed"}, said
                if not view.finished:
                    assert [each.run_id for each in (await runtime.sweep()).driven] == ["r"]
                assert await runtime.result("r", 30) is not None

    asyncio.run(main())


def test_async_and_blocking_views_share_one_runtime(tmp_path: Path) -> None:
    with uvicorn("django", f"sqlite:///{tmp_path}/runs.db", "--factory", "--lifespan", "off") as server:
        assert server.get("b/1") == "2"
        assert server.get("a/2") == "3 run_finished"
        assert server.get("b/3") == "4"
        assert "Traceback" not in server.end()
