"""The program as a process with whatever streams a test gives it, on a store of its own."""

import asyncio
import multiprocessing
import os
import pty
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from duramen import Context, Runtime, workflow
from duramen.cli import main

COMMAND = [sys.executable, "-c", "from duramen.cli import main; main()"]
LIMIT = 60
COLOURS = re.compile(r"\x1b\[[0-9;]*m")

HOSTILE = "a\x1b[2Jb\x9b31mc\x1b]52;c;QUJD\x07d\u202ee\u2028f\x85g\u2066h\x7fi\ufeffj"
"""What a terminal obeys or shows in another order: CSI, C1, OSC 52, bidi, line separators, BEL, DEL."""


def environment(**more: str | None) -> dict[str, str]:
    """That of a command; None takes a variable away."""
    merged = {**os.environ, "NO_COLOR": "1", **more}
    merged.setdefault("DURAMEN_URL", "sqlite:///app.db")
    return {name: value for name, value in merged.items() if value is not None}


def run(folder: Path, *arguments: str | bytes, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end."""
    options.setdefault("env", environment())
    if "stdout" not in options:
        options["stdout"] = subprocess.PIPE
    if "stderr" not in options:
        options["stderr"] = subprocess.PIPE
    return subprocess.run([*COMMAND, *arguments], cwd=folder, check=False, timeout=LIMIT, **options)


_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["duramen.cli.app", __name__])


def quickly(folder: Path, *arguments: str | bytes) -> subprocess.CompletedProcess[bytes]:
    """The same as `run`, in a process that need not import everything again: for long tables of cases."""
    with tempfile.TemporaryDirectory() as room:
        out, err = Path(room, "out"), Path(room, "err")
        given = [os.fsdecode(each) for each in arguments]
        process = _forks.Process(target=_be_the_program, args=(str(folder), given, str(out), str(err)))
        process.start()
        process.join(LIMIT)
        try:
            assert process.exitcode is not None, "it hangs"
            return subprocess.CompletedProcess(given, process.exitcode, out.read_bytes(), err.read_bytes())
        finally:
            process.kill()


def _be_the_program(folder: str, arguments: list[str], out: str, err: str) -> None:
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY), number)
    os.chdir(folder)
    merged = environment()
    os.environ.clear()
    os.environ.update(merged)
    sys.argv = ["duramen", *arguments]
    main()


def in_a_terminal(folder: Path, *arguments: str, columns: int = 80) -> tuple[int, str]:
    """Run a command in a terminal of that width; gives the exit code and what it showed."""
    ours, theirs = pty.openpty()
    sized = environment(COLUMNS=str(columns), LINES="40", TERM="xterm-256color", NO_COLOR=None)
    with subprocess.Popen(
        [*COMMAND, *arguments], cwd=folder, env=sized, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        deadline = time.monotonic() + LIMIT
        try:
            while time.monotonic() < deadline:
                if select.select([ours], [], [], 1)[0]:
                    try:
                        part = os.read(ours, 65536)
                    except OSError:  # the other end is closed
                        break
                    shown += part
            code = process.wait(LIMIT)
        finally:
            process.kill()
            os.close(ours)
    return code, shown.decode("utf-8").replace("\r\n", "\n")


def without_colours(text: str) -> str:
    """What is left of a terminal's text without its colours."""
    return COLOURS.sub("", text)


def commands_on(run_ids: Iterable[str]) -> list[list[str]]:
    """Every way of looking at runs."""
    looks = [["runs", "list"], ["workers", "--all"]]
    for run_id in run_ids:
        looks += [["runs", "show", run_id], ["runs", "timeline", run_id]]
    return looks


class Wicked(Exception):
    """With a text of somebody else's."""


def definitions(*, changed: bool = False) -> list[Any]:
    """Workflows whose runs end in every unhappy way; if `changed`, `drifts` no longer fits its runs."""

    async def refuse() -> None:
        cause = ValueError(f"inner {HOSTILE}")
        cause.add_note(f"note {HOSTILE}")
        raise ExceptionGroup(f"many {HOSTILE}", [KeyError("first"), Wicked(f"second {HOSTILE}")]) from cause

    async def nothing() -> str:
        return HOSTILE

    @workflow
    async def fails(ctx: Context, given: str) -> None:
        await ctx.step("refuse", refuse)

    @workflow
    async def raises(ctx: Context) -> None:
        raise Wicked(HOSTILE)

    @workflow
    async def asks(ctx: Context) -> bool:
        asked = await ctx.approve(
            f"Ship {HOSTILE}?", description=f"all of it {HOSTILE}", assignees=["ann", f"bob {HOSTILE}"]
        )
        return asked.approved

    @workflow
    async def waits(ctx: Context) -> int:
        return await ctx.wait_for_event("word", int)

    @workflow
    async def drifts(ctx: Context) -> None:
        await ctx.step("new" if changed else "old", nothing)
        await ctx.wait_for_event("go")

    return [fails, raises, asks, waits, drifts]


async def make_hostile(url: str) -> dict[str, str]:
    """Fill a store; gives the ids of its runs by workflow. They are generated ones, of 36 characters."""
    ids: dict[str, str] = {}
    async with Runtime(url, workflows=definitions()) as runtime:
        for definition in definitions():
            given = HOSTILE if definition.has_input else None
            done = await runtime.run(definition.name, given, memo={"m": HOSTILE})
            ids[definition.name] = done.run_id
        await runtime.signal(ids["waits"], "word", {"not": HOSTILE})
        cancelled = await runtime.run("waits")
        await runtime.cancel(cancelled.run_id, HOSTILE)
        ids["cancelled"] = cancelled.run_id
        await runtime.sweep()
    async with Runtime(url, workflows=definitions(changed=True)) as runtime:
        await runtime.signal(ids["drifts"], "go")
        await runtime.sweep()
        found = {run.run_id: str(run.status) for run in await runtime.list()}
    assert found == {
        ids["fails"]: "failed",
        ids["raises"]: "failed",
        ids["asks"]: "waiting",
        ids["waits"]: "waiting",
        ids["drifts"]: "stuck",
        ids["cancelled"]: "cancelled",
    }, found
    return ids


def hostile_store(folder: Path) -> dict[str, str]:
    """See `make_hostile`."""
    return asyncio.run(make_hostile(f"sqlite:///{folder}/app.db"))
