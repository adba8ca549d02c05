"""Starts the processes of `processes.py`."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
SCRIPT = Path(__file__).with_name("processes.py")
SOURCES = Path(__file__).parents[2] / "python"


def start(verb: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), verb, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        **options,
    )


def say(process: subprocess.Popen[str], text: str = "go") -> None:
    assert process.stdin is not None
    process.stdin.write(f"{text}\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def run(verb: str, *arguments: object, **options: Any) -> str:
    with start(verb, *arguments, **options) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return output.strip()


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def check_file(url: str, why: str = "") -> None:
    """Whatever happened, an SQLite file is in order. (A server looks after its own files.)"""
    if url.startswith("sqlite:///"):
        assert run("integrity", url.removeprefix("sqlite:///")) == "('ok',)", why
