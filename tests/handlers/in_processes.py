"""Steps for tests of processes: another process imports them from here."""

import asyncio
import ctypes
import os
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from duramen import Fatal, Retry, step, step_context


class Photo(BaseModel):
    name: str
    taken: datetime


@dataclass
class Thumbnail:
    name: str
    size: tuple[int, int]
    pid: int


class OutOfInk(Exception):
    def __init__(self, colour: str, level: int) -> None:
        super().__init__(f"no {colour}")
        self.colour = colour
        self.level = level


TAKEN = datetime(2030, 1, 1, tzinfo=UTC)


@step(where="process")
def shrink(photo: Photo, *factors: int, name: str = "", **more: Photo) -> Thumbnail:
    assert isinstance(photo, Photo)
    assert photo.taken == TAKEN
    assert all(isinstance(each, Photo) for each in more.values())
    return Thumbnail(name or photo.name, (sum(factors), len(more)), os.getpid())


@step(where="process")
def pid() -> int:
    return os.getpid()


@step(where="process")
def pid_after(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


@step(where="process")
async def asynchronous(n: int) -> int:
    await asyncio.sleep(0)
    return n + 1


@step(where="process")
def facts() -> list[Any]:
    here = step_context()
    return [here.run_id, here.step_id, here.attempt, here.idempotency_key, here.meta, here.cancelled]


@step(where="process", retry=Retry(attempts=3, base=0))
def counts() -> Any:
    here = step_context()
    before = here.progress
    here.heartbeat({"attempt": here.attempt})
    here.emit("told", here.attempt)
    assert here.progress == {"attempt": here.attempt}
    if here.attempt < 3:
        raise ConnectionError("not yet")
    return before


@step(where="process")
def raises(how: str) -> None:
    if how == "own":
        raise OutOfInk("blue", 3)
    if how == "exit":
        sys.exit("bye")
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "fatal":
        raise Fatal("no more")
    raise ValueError(how)


@step(where="process")
def unfit() -> Any:
    return object()


@step(where="process")
def dies(how: str, note: str) -> str:
    with Path(note).open("a") as file:
        file.write(f"{step_context().attempt}\n")
    if step_context().attempt == 1:
        if how == "segfault":
            ctypes.string_at(0)
        if how == "exit":
            os._exit(7)
        os.kill(os.getpid(), 9)
    return "alive"


@step(where="process")
def spins(note: str) -> None:
    """Listens to nobody."""
    Path(note).write_text(str(os.getpid()))
    while True:
        pass


@step(where="process", heartbeat_timeout=0.3)
def falls_silent(note: str) -> None:
    Path(note).write_text(str(os.getpid()))
    step_context().heartbeat()
    while True:
        pass


class Static:
    @step(where="process")
    @staticmethod
    def method(n: int) -> int:
        return n * 2
