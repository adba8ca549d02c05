"""A fleet as users start it, `duramen worker --processes`, and what it says."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Fleet:
    """A supervisor with its workers, and what it has said."""

    def __init__(self, folder: Path, app: str, options: Iterable[str], environment: dict[str, str]) -> None:
        command = [sys.executable, "-c", "from duramen.cli import main; main()", "worker", app, "--json"]
        self.stderr = folder / f"stderr-{time.monotonic_ns()}"
        with self.stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*command, *options],
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, **environment},
                cwd=ROOT,
            )
        self.events: list[dict[str, Any]] = []
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._more:
                self.events.append(json.loads(line))
                self._more.notify_all()

    def of(self, kind: str, **facts: Any) -> list[dict[str, Any]]:
        """Events of a kind, with these facts."""
        with self._more:
            return [
                event
                for event in self.events
                if event["event"] == kind and all(event.get(key) == fact for key, fact in facts.items())
            ]

    def await_(self, kind: str, count: int = 1, **facts: Any) -> dict[str, Any]:
        """Wait until so many events of a kind have come; gives the last."""
        with self._more:
            came = self._more.wait_for(lambda: len(self.of(kind, **facts)) >= count, 30)
            assert came, f"no {count} {kind} {facts} among {self.events}; {self.errors}"
            return self.of(kind, **facts)[count - 1]

    def ready(self, count: int) -> "Fleet":
        """Wait until so many workers are ready."""
        self.await_("ready", count)
        return self

    @property
    def pids(self) -> list[int]:
        """The process of each worker that is ready or was."""
        return [event["pid"] for event in self.of("ready")]

    @property
    def errors(self) -> str:
        """What was written to stderr."""
        return self.stderr.read_text("utf-8", "replace")

    def end(self, number: signal.Signals = signal.SIGTERM, limit: float = 30) -> int:
        """Ask it to end; gives the exit code."""
        self.process.send_signal(number)
        return self.wait(limit)

    def wait(self, limit: float = 30) -> int:
        """Wait for its end; gives the exit code."""
        code = self.process.wait(limit)
        self._reader.join(10)
        return code

    def clear(self) -> None:
        """Leave nothing behind, whatever became of the test."""
        for pid in {event["pid"] for event in self.of("started")}:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def eventually(what: Callable[[], bool], limit: float = 30) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + limit
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
