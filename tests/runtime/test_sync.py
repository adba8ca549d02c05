"""The façade for code without an event loop, lazily registered workflows, the watchdog."""

import asyncio
import inspect
import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from duramen import Context, RunHandle, Runtime, step, workflow
from duramen.errors import InvalidArgument, RunFailed, RuntimeNotOpen, StoreError, UnknownRun, UnknownWorkflow
from duramen.runtime import SyncRun, SyncRuntime
from tests.runtime.workflows import ALL, adding, approving, blocking, emitting, failing, sleeping, waiting


def test_plain_code(url: str) -> None:
    with Runtime(url, workflows=ALL).sync as runtime:
        run = runtime.start(adding, 1, run_id="a", tags=["t"])
        assert run.created
        assert run.result(5) == 2
        assert runtime.get("a").output == 2
        assert [each.run_id for each in runtime.list(tag="t")] == ["a"]
        assert runtime.run(adding, 4).output == 5
        assert runtime.count(workflow="adding") == 2
        assert [each.kind for each in runtime.timeline("a")][-1] == "run_finished"
        waiter = runtime.start(waiting, "go", run_id="w")
        assert runtime.signal("w", "go", "x", signal_id="1") in {"delivered", "buffered"}
        assert waiter.result(5) == "x"
        assert [each.kind for each in runtime.events("w")][-1] == "run_finished"
        runtime.enqueue(approving, run_id="p")
        assert len(runtime.sweep().queued) == 1
        (approval,) = runtime.get("p").waiting_approvals
        assert runtime.approve("p", approval, False, by="me", drive=True) == "delivered"
        assert runtime.result("p", 5) == "False None me"
        with pytest.raises(RunFailed, match="no"):
            runtime.start(failing, "no").result(5)
        with pytest.raises(UnknownRun):
            runtime.get("none")
        assert runtime.schema().current
        assert runtime.delete("a")
        assert len(runtime.enqueue_many([(adding, 1), (adding, 2)])) == 2


def test_many_threads(url: str) -> None:
    runtime = Runtime(url, workflows=ALL)

    def view(number: int) -> int:
        return runtime.sync.start(adding, number).result(10)

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(view, range(64))) == list(range(1, 65))
    assert len([each for each in threading.enumerate() if each.name == "duramen-sync"]) >= 1
    runtime.sync.close()
    assert runtime.sync.count() == 64  # opened again
    runtime.sync.close()


def test_views_of_an_async_program() -> None:
    async def main() -> None:
        async with Runtime("memory://", workflows=ALL) as runtime:
            with pytest.raises(RuntimeNotOpen, match="await"):
                runtime.sync.count()
            result = await asyncio.to_thread(lambda: runtime.sync.start(adding, 1).result(5))
            assert result == 2
            runtime.sync.close()  # not its own, so nothing happens
            assert await runtime.count() == 1

    asyncio.run(main())


def test_a_step_in_a_thread_may_use_it() -> None:
    runtime = Runtime("memory://", workflows=[])

    @step
    def enqueue_more(number: int) -> str:
        return runtime.sync.enqueue(adding, number, run_id=f"more:{number}").run_id

    @workflow
    async def parent(ctx: Context) -> str:
        return await enqueue_more(7)

    async def main() -> None:
        for each in (parent, adding):
            runtime._services.registry.add(each)
        async with runtime:
            assert await (await runtime.start(parent)).result(5) == "more:7"
            assert await runtime.count() == 2

    asyncio.run(main())


def test_errors_of_opening_reach_the_caller(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_text("no database at all, and long enough to be sure of it" * 50)
    runtime = Runtime(f"sqlite:///{tmp_path / 'a.db'}")
    for _ in range(2):
        with pytest.raises(StoreError):
            runtime.sync.count()


def test_a_paused_run_is_woken_without_anybody_waiting() -> None:
    with Runtime("memory://", workflows=ALL).sync as runtime:
        assert runtime.start(sleeping, 1.2).result(5) == "slept"
        assert runtime.start(emitting, 3).result(5) == 3


def test_lazy_registration_isolates_an_import_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "fine_module.py").write_text(
        "from duramen import workflow\n@workflow\nasync def fine(ctx):\n    return 1\n"
    )
    (tmp_path / "bad_module.py").write_text("raise RuntimeError('a broken module')\n")
    monkeypatch.syspath_prepend(tmp_path)
    runtime = Runtime("memory://", workflows=["fine_module:fine", "bad_module:bad", "fine_module:missing"])

    async def main() -> None:
        async with runtime:
            assert await (await runtime.start("fine")).result(5) == 1
            with pytest.raises(UnknownWorkflow) as caught:
                await runtime.start("bad")
            assert any("a broken module" in note for note in caught.value.__notes__)
            assert set(runtime.broken) == {"bad_module:bad", "fine_module:missing"}

    asyncio.run(main())
    assert "bad_module:bad" in caplog.text
    (tmp_path / "bad_module.py").write_text(
        "from duramen import workflow\n@workflow\nasync def bad(ctx):\n    return 2\n"
    )
    sys.modules.pop("bad_module", None)
    __import__("importlib").invalidate_caches()

    async def again() -> None:
        async with runtime:
            assert await (await runtime.start("bad")).result(5) == 2

    asyncio.run(again())


def test_the_watchdog_says_where_the_loop_is_blocked(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with Runtime("memory://", workflows=ALL, watchdog=0.2) as runtime:
            assert await (await runtime.start(blocking, 0.8)).result(5) == "blocked"
            while "blocked for" not in caplog.text:  # noqa: ASYNC110 - a thread tells it
                await asyncio.sleep(0.01)

    with caplog.at_level(logging.WARNING, logger="duramen"):
        asyncio.run(main())
    warnings = [record.getMessage() for record in caplog.records if "blocked for" in record.getMessage()]
    assert len(warnings) == 1
    assert "blocking at " in warnings[0]
    assert "workflows.py:" in warnings[0]


def test_the_watchdog_is_silent_otherwise(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with Runtime("memory://", workflows=ALL, watchdog=0.2) as runtime:
            assert await (await runtime.start(sleeping, 0.6)).result(5) == "slept"

    with caplog.at_level(logging.WARNING, logger="duramen"):
        asyncio.run(main())
    assert not caplog.records


def test_closing_gives_up_on_a_step_that_takes_too_long(caplog: pytest.LogCaptureFixture, url: str) -> None:

    async def main() -> None:
        from tests.runtime.workflows import working

        async with Runtime(url, workflows=ALL, shutdown_timeout=0.1, lease=1) as runtime:
            await runtime.start(working, 60.0, run_id="x")
            while (await runtime.get("x")).status != "running":  # noqa: ASYNC110 - the store tells nobody
                await asyncio.sleep(0.01)
        async with Runtime(url, workflows=ALL) as runtime:
            view = await runtime.get("x")
            assert (view.status, view.journal_len) == ("running", 1)
            await runtime.cancel("x")
            while not (recovered := (await runtime.sweep()).recovered):  # noqa: ASYNC110 - its lease lasts
                await asyncio.sleep(0.01)
            assert [each.kind for each in recovered] == ["cancelled"]

    asyncio.run(asyncio.wait_for(main(), 10))
    assert "1 runs had steps in flight" in caplog.text


def test_bad_calls_are_refused_here_too() -> None:
    with Runtime("memory://", workflows=ALL).sync as runtime, pytest.raises(InvalidArgument):
        runtime.list(limit=0)


def calls_of(kind: type[Any]) -> dict[str, Any]:
    """What one can call on it, but for its opening and its end."""
    rooms = [room for room in kind.__mro__ if room is kind or room.__name__.endswith("Calls")]
    named = {name: value for room in rooms for name, value in vars(room).items() if not name.startswith("_")}
    return {
        name: value
        for name, value in named.items()
        if inspect.isfunction(value) and name not in {"open", "close", "work", "stats"}
    }


@pytest.mark.parametrize(("awaited", "blocking"), [(Runtime, SyncRuntime), (RunHandle, SyncRun)])
def test_every_call_has_its_blocking_one_with_the_same_arguments(
    awaited: type[Any], blocking: type[Any]
) -> None:
    theirs, ours = calls_of(awaited), calls_of(blocking)
    assert theirs.keys() == ours.keys()
    for name, call in theirs.items():
        expected, found = inspect.signature(call), inspect.signature(ours[name])
        assert list(found.parameters.values()) == list(expected.parameters.values()), name
        assert ours[name].__doc__.startswith("See `Runtime."), name
        assert not inspect.iscoroutinefunction(ours[name])


def test_iterables_are_gone_through_in_the_thread_of_the_caller() -> None:
    threads: list[str] = []

    def given(*values: Any) -> Any:
        for value in values:
            threads.append(threading.current_thread().name)
            yield value

    with Runtime("memory://", workflows=ALL).sync as runtime:
        runtime.enqueue_many(given((adding, 1)))
        runtime.get_many(run_ids=given("a", "b"))
        runtime.signal_many(given(("a", "go", 1)))
    assert threads == [threading.current_thread().name] * 4


def test_a_misspelt_filter_is_an_error() -> None:
    with Runtime("memory://").sync as runtime:
        for call in (runtime.count, runtime.list):
            with pytest.raises(
                TypeError, match=f"{call.__name__}.. got an unexpected keyword argument 'tga'"
            ):
                call(tga="x")
