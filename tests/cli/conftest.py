"""A store with runs in every state, made once for each kind; and the program itself, as a process."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from tests.postgres.schemas import connected, drop, migrate, new_schema, tables, without_schema

APP = """
import asyncio, os
from duramen import Context, Runtime, workflow

@workflow
async def add(ctx: Context, numbers: list[int]) -> int:
    return await ctx.step("sum", sum, numbers)

@workflow
async def wait(ctx: Context) -> str:
    for number in range(3):
        await ctx.stream("log").write({"number": number})
    return await ctx.wait_for_event("word", str)

@workflow
async def decide(ctx: Context) -> bool:
    return (await ctx.approve("Go?")).approved

def divide(number: int) -> float:
    return 1 / number

@workflow
async def fail(ctx: Context, number: int) -> float:
    return await ctx.step("divide", divide, number)

@workflow
async def sleep(ctx: Context) -> None:
    await ctx.sleep(3600)

@workflow
async def count(ctx: Context) -> int:
    counted = 0
    def more(number: int) -> int:
        nonlocal counted
        counted += number
        return counted
    def positive(number: int) -> None:
        if number < 1:
            raise ValueError("count up")
    ctx.on_update("more", more, validate=positive)
    ctx.on_query("counted", lambda times=1: counted * times)
    return await ctx.wait_for_event("enough")

runtime = Runtime(os.environ["SHOP_URL"], workflows=[add, wait, decide, fail, sleep, count])

def make() -> Runtime:
    return runtime

async def fill() -> None:
    async with runtime:
        await runtime.run(add, [1, 2, 3], run_id="add:1", tags=["math"])
        await runtime.run(wait, run_id="wait:1")
        await runtime.run(decide, run_id="decide:1")
        await runtime.run(fail, 0, run_id="fail:1")
        await runtime.run(sleep, run_id="sleep:1")
        await runtime.enqueue(add, [4, 5], run_id="add:2")

if __name__ == "__main__":
    asyncio.run(fill())
"""


@dataclass
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]
SQLITE = "sqlite:///app.db"


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "shop.py").write_text(APP)
    fill(folder, SQLITE)
    return folder


def fill(folder: Path, url: str) -> None:
    environment = {**os.environ, "SHOP_URL": url}
    subprocess.run([sys.executable, "shop.py"], cwd=folder, check=True, timeout=60, env=environment)


@pytest.fixture(scope="session")
def filled_schema(filled: Path, postgres_server: str) -> Iterator[str]:
    """The URL of a store on Postgres that has the runs."""
    url = new_schema(postgres_server)
    migrate(url)
    fill(filled, url)
    yield url
    drop(url)


@pytest.fixture
def folder(filled: Path, tmp_path: Path) -> Path:
    """A copy for each test: they change things."""
    return Path(shutil.copytree(filled, tmp_path / "app"))


@pytest.fixture
def copied_schema(filled_schema: str, postgres_url: str) -> str:
    original = without_schema(filled_schema)[1]
    with connected(postgres_url) as connection:
        for table in tables(postgres_url):
            if "migrations" not in table:
                names = sql.Identifier(table), sql.Identifier(original, table)
                connection.execute(sql.SQL("INSERT INTO {} SELECT * FROM {}").format(*names))
    return postgres_url


@pytest.fixture(params=["sqlite", "postgres"])
def shop_url(request: pytest.FixtureRequest) -> str:
    """The URL of a copy of the runs; tests that ask for `duramen` run on each kind of store."""
    if request.param == "sqlite":
        return SQLITE
    url: str = request.getfixturevalue("copied_schema")
    return url


@pytest.fixture
def duramen(folder: Path, shop_url: str) -> Run:
    def run(*arguments: str, store: str | None = shop_url, cwd: Path = folder) -> Ran:
        environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "120", "SHOP_URL": shop_url}
        environment.pop("DURAMEN_URL", None)
        if store is not None:
            environment["DURAMEN_URL"] = store
        ran = subprocess.run(
            [sys.executable, "-c", "from duramen.cli import main; main()", *arguments],
            cwd=cwd,
            env=environment,
            capture_output=True,
            check=False,
            text=True,
            timeout=60,
        )
        assert "Traceback" not in ran.stderr, ran.stderr
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    return run
