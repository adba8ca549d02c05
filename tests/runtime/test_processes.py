"""Runtimes in several processes, threads and loops; forks, signals and exits."""

import asyncio
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from duramen import Runtime
from duramen.errors import ForkedProcess, RuntimeClosed
from tests.runtime.workflows import ALL, adding, emitting, waiting, working

ROOT = Path(__file__).parents[2]


def spawn(code: str, *args: str) -> subprocess.Popen[str]:
    # A shell gives its background jobs an ignored SIGINT, which all that they start inherits.
    head = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    head += "import asyncio, sys, time\nfrom duramen import *\nfrom tests.runtime.workflows import *\n"
    return subprocess.Popen(
        [sys.executable, "-X", "dev", "-c", head + textwrap.dedent(code), *args],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str], code: int = 0, timeout: float = 15) -> str:
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"it did not end:\n{out}\n{err}")
    assert process.returncode == code, err
    for word in ("was never", "ResourceWarning", "Exception ignored", "panicked", "Fatal Python"):
        assert word not in err, err
    return out


WORKER = """
async def main():
    async with Runtime(sys.argv[1], workflows=ALL, lease=float(sys.argv[2])) as runtime:
        print("ready", flush=True)
        await runtime.work()
    print("drained", flush=True)
asyncio.run(main())
"""


def test_result_and_events_across_processes(url: str) -> None:
    async def main() -> None:
        async with Runtime(url, workflows=ALL) as runtime:
            run = await runtime.enqueue(waiting, "go")
            worker = spawn(WORKER, url, "30")
            assert line(worker) == "ready"
            kinds: list[str] = []
            async for event in runtime.events(run.run_id):
                kinds.append(event.kind)
                if event.kind == "run_created":
                    await run.signal("go", "from afar")
            # resumed from the second entry on
            rest = [event.kind async for event in runtime.events(run.run_id, 1)]
            assert rest == kinds[1:]
            assert await run.result(10) == "from afar"
            many = [await runtime.enqueue(emitting, 5) for _ in range(20)]
            assert [await each.result(10) for each in many] == [5] * 20
            assert {(await each.get()).epoch for each in many} == {1}
            worker.send_signal(signal.SIGTERM)
            assert end(worker) == "drained\n"

    asyncio.run(main())


def test_a_killed_worker_is_replaced(url: str) -> None:
    async def main() -> None:
        async with Runtime(url, workflows=ALL) as runtime:
            run = await runtime.enqueue(working, 1.0)
            first = spawn(WORKER, url, "1")
            while (await run.get()).status != "running":  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)
            first.kill()
            first.communicate()
            second = spawn(WORKER, url, "1")
            assert await run.result(15) == "done"
            assert (await run.get()).epoch == 2
            second.send_signal(signal.SIGINT)
            end(second)

    asyncio.run(main())


def test_sigterm_waits_for_steps_in_flight(url: str) -> None:
    async def main() -> None:
        async with Runtime(url, workflows=ALL) as runtime:
            run = await runtime.enqueue(working, 1.0)
            worker = spawn(WORKER, url, "30")
            while (await run.get()).status != "running":  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)
            worker.send_signal(signal.SIGTERM)
            end(worker)
            timeline = await run.timeline()
            assert timeline[1].kind == "step_completed"
            await runtime.sweep()
            assert await run.result(5) == "done"
            assert len(await run.timeline()) == 3

    asyncio.run(main())


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM"])
def test_signals_without_work_end_as_python_does(url: str, how: str) -> None:
    process = spawn(
        """
        async def main():
            async with Runtime(sys.argv[1], workflows=ALL) as runtime:
                await runtime.start(working, 0.5)
                print("ready", flush=True)
                await asyncio.sleep(60)
        asyncio.run(main())
        """,
        url,
    )
    assert line(process) == "ready"
    process.send_signal(getattr(signal, how))
    out, err = process.communicate(timeout=15)
    assert process.returncode == -getattr(signal, how), (out, err)
    assert "panicked" not in err


@pytest.mark.parametrize(
    "code",
    [
        "runtime = Runtime(sys.argv[1], workflows=ALL)",
        """
        async def main():
            runtime = await Runtime(sys.argv[1], workflows=ALL).open()
            await runtime.start(waiting, "go")
            await runtime.start(working, 30.0)
        asyncio.run(main())
        """,
        """
        runtime = Runtime(sys.argv[1], workflows=ALL)
        runtime.sync.start(working, 0.3)
        """,
        """
        import threading
        def serve():
            async def main():
                async with Runtime(sys.argv[1], workflows=ALL) as runtime:
                    await runtime.start(working, 30.0)
                    ready.set()
                    await asyncio.sleep(60)
            asyncio.run(main())
        ready = threading.Event()
        threading.Thread(target=serve, daemon=True).start()
        ready.wait()
        """,
        """
        async def main():
            async with Runtime(sys.argv[1], workflows=ALL) as runtime:
                await runtime.start(working, 30.0)
                sys.exit(0)
        asyncio.run(main())
        """,
        """
        import os
        from duramen.errors import RuntimeClosed
        class Late:
            def __del__(self):
                try:
                    runtime.sync.count()
                except RuntimeClosed:
                    os.write(1, b"refused")
        runtime = Runtime(sys.argv[1], workflows=ALL)
        runtime.sync.start(working, 0.3)
        late = Late()
        """,
    ],
    ids=["unused", "left open", "sync left open", "daemon thread", "sys.exit", "a call in __del__"],
)
def test_the_interpreter_ends(code: str, any_url: str) -> None:
    begin = time.monotonic()
    process = spawn(code, any_url)
    try:
        out, err = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail("it hangs")
    assert process.returncode == 0, err
    assert ("refused" in out) == ("__del__" in code)
    assert "panicked" not in err
    assert time.monotonic() - begin < 12


def test_a_runtime_that_was_left_open_on_a_loop_that_has_ended(url: str) -> None:
    """As by a notebook or a test that forgets it: the next loop opens it again."""
    runtime = Runtime(url, workflows=ALL)

    async def forgets(run_id: str) -> str:
        await runtime.open()
        await runtime.start(working, 0.0, run_id=run_id)
        await runtime.result(run_id, timeout=30)
        return runtime.owner

    assert asyncio.run(forgets("one")) != asyncio.run(forgets("two"))

    async def closes() -> None:
        async with runtime:
            assert await runtime.count() == 2

    asyncio.run(closes())


def test_any_thread_may_look_how_it_goes(url: str) -> None:
    async def main() -> None:
        async with Runtime(url, workflows=ALL) as runtime:
            seen = (runtime.owner, runtime.stats()["active"])

            async def look() -> tuple[str, int]:
                return runtime.owner, runtime.stats()["active"]

            assert await asyncio.to_thread(lambda: (runtime.owner, runtime.stats()["active"])) == seen
            assert await asyncio.to_thread(lambda: asyncio.run(look())) == seen
        with pytest.raises(RuntimeClosed):
            await asyncio.to_thread(runtime.stats)

    asyncio.run(main())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_gets_a_typed_error(url: str) -> None:
    process = spawn(
        """
        import os
        async def main():
            async with Runtime(sys.argv[1], workflows=ALL) as runtime:
                await runtime.run(adding, 1)
                pid = os.fork()
                if pid == 0:
                    names = []
                    for call in (runtime.count, lambda: runtime.start(adding, 1), runtime.close):
                        try:
                            call().send(None)
                            names.append("nothing")
                        except BaseException as error:
                            names.append(type(error).__name__)
                    try:
                        runtime.sync.count()
                        names.append("nothing")
                    except BaseException as error:
                        names.append(type(error).__name__)
                    print(*names, flush=True)
                    os._exit(0)
                os.waitpid(pid, 0)
                print(await runtime.run(adding, 2) is not None, flush=True)
        asyncio.run(main())
        """,
        url,
    )
    out = end(process).splitlines()
    assert out == ["ForkedProcess " * 3 + "ForkedProcess", "True"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_makes_a_runtime_of_its_own(url: str) -> None:
    process = spawn(
        """
        import os
        async def one(n):
            async with Runtime(sys.argv[1], workflows=ALL) as runtime:
                return (await runtime.run(adding, n)).output
        print(asyncio.run(one(1)), flush=True)
        read, write = os.pipe()  # what two processes print to one pipe may run together
        pid = os.fork()
        if pid:
            print(asyncio.run(one(2)), flush=True)
            _, status = os.waitpid(pid, 0)
            print(status, os.read(read, 100).decode(), flush=True)
        else:
            os.write(write, str(asyncio.run(one(3))).encode())
        """,
        url,
    )
    assert end(process).splitlines() == ["2", "3", "0 4"]


def test_many_loops_in_many_threads_share_a_file(url: str) -> None:
    failures: list[BaseException] = []

    def serve(number: int) -> None:
        async def main() -> None:
            async with Runtime(url, workflows=ALL) as runtime:
                runs = [await runtime.start(emitting, 3, run_id=f"{number}:{n}") for n in range(5)]
                assert [await run.result(20) for run in runs] == [3] * 5

        try:
            asyncio.run(main())
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=serve, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert Runtime(url).sync.count(status="completed") == 30


def test_two_runtimes_on_one_loop_drive_one_store(url: str) -> None:
    async def main() -> None:
        async with Runtime(url, workflows=ALL) as one, Runtime(url, workflows=ALL) as two:
            works = [asyncio.create_task(each.work(handle_signals=False)) for each in (one, two)]
            handles = await one.enqueue_many([(emitting, 4)] * 60)
            assert [await two.result(each.run_id, 20) for each in handles] == [4] * 60
            for each in handles:
                assert len(await one.timeline(each.run_id)) == 6
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)

    asyncio.run(main())


def test_two_runtimes_start_the_same_run(url: str) -> None:
    async def main() -> None:
        async with Runtime(url, workflows=ALL) as one, Runtime(url, workflows=ALL) as two:
            runs = await asyncio.gather(*(each.start(emitting, 5, run_id="x") for each in (one, two) * 10))
            assert sum(run.created for run in runs) == 1
            assert [await run.result(10) for run in runs] == [5] * 20
            assert len(await one.timeline("x")) == 7
            elsewhere = await one.start(working, 0.5, run_id="y")
            result = await two.run(working, 0.5, run_id="y")
            assert result.kind == "running"
            assert await elsewhere.result(5) == "done"

    asyncio.run(main())


def test_memory_stores_are_shared_by_name_only() -> None:
    async def main() -> None:
        async with (
            Runtime("memory://shared", workflows=ALL) as one,
            Runtime("memory://shared", workflows=ALL) as two,
            Runtime("memory://", workflows=ALL) as three,
        ):
            await one.run(adding, 1)
            assert [await each.count() for each in (one, two, three)] == [1, 1, 0]

    asyncio.run(main())


def test_uvloop_as_the_host(url: str) -> None:
    uvloop: Any = pytest.importorskip("uvloop")

    async def main(url: str) -> None:
        async with Runtime(url, workflows=ALL) as runtime:
            runs = [await runtime.start(emitting, 5) for _ in range(20)]
            assert [await run.result(10) for run in runs] == [5] * 20
            paused = await runtime.start(waiting, "go")
            await paused.signal("go", "x")
            assert await paused.result(5) == "x"

    for each in ("memory://", url):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main(each))


def test_a_loop_without_add_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise NotImplementedError

    async def main() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", refuse)
        async with Runtime("memory://", workflows=ALL) as runtime:
            runs = [await runtime.start(emitting, 5) for _ in range(20)]
            assert [await run.result(10) for run in runs] == [5] * 20

    asyncio.run(main())


def test_spawned_workers_of_multiprocessing(url: str) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert sorted(pool.map(count_in, [url] * 4)) == [1, 1, 1, 1]
    assert Runtime(url).sync.count() == 1
    assert ForkedProcess


def count_in(url: str) -> int:
    with Runtime(url, workflows=ALL).sync as runtime:
        runtime.run(adding, 1, run_id="one")
        return runtime.count()


def test_import_loads_nothing_that_only_some_need() -> None:
    """How long it takes is measured in benches/; this is why it stays short."""
    code = "import json, sys, duramen; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    loaded = {name.partition(".")[0] for name in json.loads(out.stdout)}
    assert "pydantic" in loaded
    assert not loaded & {"typer", "rich", "sqlalchemy", "psycopg", "asyncpg", "pytest", "jsonpatch"}
    assert "duramen.testing" not in json.loads(out.stdout)
