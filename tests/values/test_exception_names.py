"""A handler takes the same branch in every process, by whatever name the exception's class goes there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import duramen

pytestmark = pytest.mark.slow

APP = """
import asyncio
import sys

from duramen import Context, Retry, Runtime, StepFailed, register_exception, workflow


REGISTER
class OutOfStock(Exception):
    pass


async def reserve() -> None:
    raise OutOfStock("bolts")


@workflow(name="ordering")
async def ordering(ctx: Context) -> str:
    branch = "none"
    try:
        await ctx.step("reserve", reserve, retry=Retry(attempts=1))
    except StepFailed as error:
        branch = "out of stock" if isinstance(error.__cause__, OutOfStock) else "some other reason"
    return f"{branch}, {await ctx.wait_for_event('go', str)}"


async def main(url: str, go: str) -> None:
    async with Runtime(url, workflows=[ordering]) as runtime:
        if go:
            await runtime.signal("r", "go", go)
            await runtime.sweep()
        else:
            await runtime.run(ordering, run_id="r")
        view = await runtime.get("r")
        print(view.status, view.output, view.note)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


def play(folder: Path, *arguments: str) -> str:
    path = os.pathsep.join([str(folder), str(Path(duramen.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def write(folder: Path, name: str, register: str) -> None:
    (folder / name).write_text(APP.replace("REGISTER", register))


IMPORTED = "import asyncio, sys; from {module} import main; asyncio.run(main(sys.argv[1], sys.argv[2]))"


def test_a_program_and_whoever_imports_it_agree(tmp_path: Path) -> None:
    write(tmp_path, "shop_app.py", "@register_exception")
    for number, first in enumerate(
        (["shop_app.py"], ["-m", "shop_app"], ["-c", IMPORTED.format(module="shop_app")])
    ):
        url = f"sqlite:///{tmp_path / f'{number}.db'}"
        assert play(tmp_path, *first, url, "").startswith("waiting")
        found = play(tmp_path, "-c", IMPORTED.format(module="shop_app"), url, "sent")
        assert found == "completed out of stock, sent None"


def test_a_class_that_moved_is_found_by_its_name_or_its_aliases(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    write(tmp_path, "before.py", "@register_exception")
    write(tmp_path, "after.py", '@register_exception(name="shop.OutOfStock", aliases=["before.OutOfStock"])')
    write(tmp_path, "later.py", '@register_exception(name="shop.OutOfStock")')
    assert play(tmp_path, "before.py", url, "").startswith("waiting")
    assert play(tmp_path, "after.py", url, "sent") == "completed out of stock, sent None"
    url += "2"
    assert play(tmp_path, "after.py", url, "").startswith("waiting")
    assert play(tmp_path, "later.py", url, "sent") == "completed out of stock, sent None"


def test_a_class_that_is_registered_no_more_parks_the_run_until_it_is(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    write(tmp_path, "before.py", "@register_exception")
    write(tmp_path, "without.py", "")
    write(tmp_path, "again.py", '@register_exception(aliases=["before.OutOfStock"])')
    assert play(tmp_path, "before.py", url, "").startswith("waiting")
    found = play(tmp_path, "without.py", url, "sent")
    assert found.startswith("stuck None")
    assert "'before.OutOfStock' was registered when this was recorded" in found
    retry = "import sys; from duramen import Runtime; Runtime(sys.argv[1]).sync.retry('r')"
    play(tmp_path, "-c", retry, url)
    assert play(tmp_path, "again.py", url, "sent").startswith("completed out of stock")


def test_a_class_that_is_registered_only_now_changes_no_branch(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    write(tmp_path, "app.py", "")
    assert play(tmp_path, "app.py", url, "").startswith("waiting")
    write(tmp_path, "app.py", "@register_exception")
    assert play(tmp_path, "app.py", url, "sent") == "completed some other reason, sent None"
