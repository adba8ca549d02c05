"""Real workflows on a store that is written in Python, through `Runtime(store)`."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from duramen import Context, Runtime, step, workflow
from duramen.errors import StoreClosed, StoreError, StoreFull, StoreUnmigrated
from duramen.store import Store
from duramen.testing import open_store
from tests.store.helpers import wait_for
from tests.store.python_store import PythonStore

CALLS: list[str] = []


@step
async def add(one: int, other: int) -> int:
    CALLS.append(f"add {one} {other}")
    return one + other


@workflow(name="sum")
async def sum_up(ctx: Context, start: int) -> int:
    total = await add(start, 1)
    await ctx.sleep(0.02)
    total = await add(total, await ctx.wait_for_event("more", int))
    if total < 0:
        raise ValueError("negative")
    return total


class Spy:
    """Passes everything on, and counts; `fail` says what a method does before that."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.calls: dict[str, int] = {}
        self.fail: dict[str, Exception] = {}
        self.elements = 0

    def __getattr__(self, method: str) -> Any:
        async def call(*args: Any) -> Any:
            self.calls[method] = self.calls.get(method, 0) + 1
            if method == "commit":
                self.elements += len(args[0])
            if method in self.fail:
                raise self.fail[method]
            return await getattr(self.inner, method)(*args)

        return call


@pytest.mark.parametrize("kind", ["python", "sqlite adapter"])
def test_a_workflow_runs_pauses_and_ends(tmp_path: Path, kind: str) -> None:
    async def main() -> None:
        file = tmp_path / "runs.db"
        inner = PythonStore(file) if kind == "python" else open_store(f"sqlite:///{file}")
        store = Spy(inner)
        async with Runtime(store, workflows=[sum_up], migrate=True) as runtime:
            run = await runtime.start(sum_up, 5, run_id="a")
            assert not (await runtime.start(sum_up, 99, run_id="a")).created
            await runtime.signal("a", "more", 10)
            assert await run.result(timeout=20) == 16
            view = await runtime.get("a")
            assert view is not None
            assert (view.status, view.output) == ("completed", 16)
            kinds = [one.kind for one in await runtime.timeline("a")]
            assert kinds[0] == "run_created"
            assert kinds[-1] == "run_finished"
            assert kinds.count("step_completed") == 2
            assert [one.run_id for one in (await runtime.list()).items] == ["a"]
            assert await runtime.count(status="completed") == 1
        assert store.calls["close"] == 1
        with pytest.raises(StoreClosed):
            await inner.count({})

    wait_for(main())


def test_a_run_goes_on_after_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        CALLS.clear()
        async with Runtime(PythonStore(tmp_path / "runs.db"), workflows=[sum_up], migrate=True) as runtime:
            await runtime.start(sum_up, 1, run_id="a")
            for _ in range(500):
                view = await runtime.get("a")
                if view is not None and "event:more" in view.waits:
                    break
                await asyncio.sleep(0.01)
            else:
                pytest.fail("it never came to wait")
        async with Runtime(PythonStore(tmp_path / "runs.db"), workflows=[sum_up]) as runtime:
            await runtime.signal("a", "more", 40)
            swept = await runtime.sweep()
            assert [(run.run_id, run.kind) for run in swept.timers] == [("a", "completed")]
            assert await runtime.result("a", timeout=20) == 42
        assert CALLS == ["add 1 1", "add 2 40"]

    wait_for(main())


def test_many_runs_at_once_and_messages_in_the_same_call(tmp_path: Path) -> None:
    async def main() -> None:
        store = Spy(PythonStore(tmp_path / "runs.db"))
        async with Runtime(store, workflows=[sum_up], migrate=True) as runtime:
            runs = await asyncio.gather(*(runtime.start(sum_up, n, run_id=f"r{n}") for n in range(60)))
            await asyncio.gather(*(runtime.signal(f"r{n}", "more", 1) for n in range(60)))
            totals = await asyncio.gather(*(run.result(timeout=40) for run in runs))
            assert totals == [n + 2 for n in range(60)]
        assert store.elements > store.calls["commit"], "commits of several runs go together"

    wait_for(main())


def test_a_store_without_its_schema_is_not_opened(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(StoreUnmigrated):
            async with Runtime(PythonStore(tmp_path / "runs.db"), workflows=[sum_up]):
                pass
        runtime = Runtime(PythonStore(tmp_path / "runs.db"), workflows=[sum_up])
        assert (await runtime.migrate()).applied == ("initial",)

    wait_for(main())


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (StoreFull("no room"), StoreFull),
        (KeyError("a defect of the store"), StoreError),
        (TimeoutError("the server is far away"), StoreError),
    ],
)
def test_what_a_store_raises_reaches_the_caller(
    tmp_path: Path, raised: Exception, expected: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        store = Spy(PythonStore(tmp_path / "runs.db"))
        async with Runtime(store, workflows=[sum_up], migrate=True) as runtime:
            store.fail["create"] = raised
            with pytest.raises(expected, match=str(raised.args[0])):
                await runtime.enqueue(sum_up, 1, run_id="a")
            store.fail.clear()
            assert (await runtime.enqueue(sum_up, 1, run_id="a")).created

    caplog.set_level(logging.CRITICAL)
    wait_for(main())


def test_an_answer_in_a_wrong_form_is_named(tmp_path: Path) -> None:
    class Odd(PythonStore):
        async def count(self, asked: Any, /) -> Any:
            return "many"

    async def main() -> None:
        async with Runtime(Odd(tmp_path / "runs.db"), workflows=[sum_up], migrate=True) as runtime:
            with pytest.raises(Exception, match=r"count\(\) answered in a wrong form"):
                await runtime.count()

    wait_for(main())


def test_a_store_that_hangs_does_not_keep_the_runtime_from_closing(tmp_path: Path) -> None:
    async def main() -> None:
        hangs = asyncio.Event()

        class Slow(PythonStore):
            async def count(self, asked: Any, /) -> Any:
                hangs.set()
                await asyncio.sleep(3600)

        runtime = Runtime(Slow(tmp_path / "runs.db"), workflows=[sum_up], migrate=True, shutdown_timeout=0.2)
        await runtime.open()
        asked = asyncio.ensure_future(runtime.count())
        await hangs.wait()
        await asyncio.wait_for(runtime.close(), 5)
        with pytest.raises(Exception, match="closed"):
            await asked

    wait_for(main())
