"""Steps with ``where="process"``."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from duramen import (
    Context,
    Next,
    Retry,
    RunCancelled,
    RunFailed,
    Runtime,
    StepContext,
    StepFailed,
    StepTimeout,
    step,
    workflow,
)
from duramen.errors import InvalidArgument, WorkflowDefinitionError
from tests.handlers import in_processes as steps
from tests.regressions.support import until_true

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def has_ended(pid: int) -> bool:
    """Whether it runs no more; its parent may not have taken note yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def is_gone(pid: int) -> bool:
    return not is_alive(pid)


def children() -> set[int]:
    """The processes that this one has started and not waited for."""
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


@pytest.fixture(autouse=True)
def leaves_no_process() -> Any:
    before = children()
    yield
    assert children() <= before


async def result_of(wf: Any, *args: Any, **options: Any) -> Any:
    async with Runtime("memory://", workflows=[wf], **options) as runtime:
        return await (await runtime.start(wf, *args)).result(timeout=60)


# -- calls ---------------------------------------------------------------------------------------------------


async def test_arguments_and_results_go_there_and_back_by_their_annotations() -> None:
    photo = steps.Photo(name="cat", taken=steps.TAKEN)

    @workflow
    async def wf(ctx: Context) -> list[Any]:
        first = await steps.shrink(photo, 1, 2, more=photo)
        assert isinstance(first, steps.Thumbnail)
        second = await ctx.step("partial", partial(steps.shrink, photo, name="dog"), 3)
        return [
            [first.name, list(first.size), first.pid == os.getpid()], [second.name, list(second.size)],
            await steps.asynchronous(1), await steps.Static.method(4),
            await ctx.step("x", steps.pid) == first.pid,
        ]  # fmt: skip

    assert await result_of(wf) == [["cat", [3, 1], False], ["dog", [3, 0]], 2, 8, True]
    assert (await steps.shrink(photo, 1)).pid == os.getpid()  # a plain call outside of a run


async def test_a_step_in_a_process_knows_its_attempt_and_tells_of_its_progress() -> None:
    @workflow
    async def wf(ctx: Context) -> list[Any]:
        return [await ctx.step("facts", steps.facts, meta={"tenant": "acme"}), await steps.counts()]

    async with Runtime("memory://", workflows=[wf]) as runtime:
        found = await runtime.run(wf, run_id="r")
    assert found.output == [["r", "facts", 1, "r/facts", {"tenant": "acme"}, False], {"attempt": 2}]
    assert [each.data for each in found.events if each.op == "told"] == [1, 2, 3]


async def test_what_is_raised_there_fails_the_step_here() -> None:
    asked: list[Any] = []

    def rule(error: Exception) -> bool:
        asked.append((type(error), getattr(error, "level", None), str(error)))
        return False

    @workflow
    async def wf(ctx: Context) -> list[Any]:
        found: list[Any] = []
        for how in ("own", "exit", "interrupt", "value", "fatal"):
            try:
                await ctx.step(how, steps.raises, how, retry=Retry(attempts=2, base=0, retry_if=rule))
            except StepFailed as failure:
                error = failure.error
                found.append(
                    [error.short_name, error.message, failure.attempts, type(failure.__cause__).__name__]
                )
                assert "in raises" in error.traceback
        return found

    assert await result_of(wf) == [
        ["OutOfInk", "no blue", 1, "NoneType"],
        ["SystemExit", "bye", 1, "NoneType"],
        ["KeyboardInterrupt", "", 1, "NoneType"],
        ["ValueError", "value", 1, "ValueError"],
        ["Fatal", "no more", 1, "Fatal"],
    ]
    assert asked[0] == (steps.OutOfInk, 3, "no blue")
    assert asked[-1] == (ValueError, None, "value")
    assert [kind for kind, _, _ in asked[1:-1]] == [RuntimeError, RuntimeError]


async def test_what_cannot_be_sent_fails_the_step_at_once() -> None:
    @workflow(retry=Retry(attempts=5, base=0))
    async def wf(ctx: Context) -> list[Any]:
        found: list[Any] = []
        for call in (
            partial(ctx.step, "there", steps.shrink, object()),
            partial(ctx.step, "back", steps.unfit),
            partial(ctx.step, "meta", steps.facts, meta={"a": object()}),
        ):
            try:
                await call()
            except StepFailed as failure:
                found.append([failure.operation_id, failure.error.short_name, failure.attempts])
        return found

    assert await result_of(wf) == [
        ["there", "SerializationError", 1],
        ["back", "SerializationError", 1],
        ["meta", "SerializationError", 1],
    ]  # fmt: skip


# -- ends ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("segfault", "its process was ended by SIGSEGV"),
        ("exit", "its process ended with status 7"),
        ("kill", "its process was ended by SIGKILL, as the system does when memory is short"),
    ],
)
async def test_a_process_that_dies_fails_its_attempt_and_no_neighbour(
    how: str, text: str, tmp_path: Path
) -> None:
    note = tmp_path / "note"

    @workflow
    async def wf(ctx: Context) -> list[Any]:
        both = await asyncio.gather(
            ctx.step("a", steps.pid_after, 0.5),
            ctx.step("b", steps.dies, how, str(note), retry=Retry(attempts=2, base=0)),
        )
        return [both[1]]

    async with Runtime("memory://", workflows=[wf], processes=2) as runtime:
        run = await runtime.start(wf)
        assert await run.result(timeout=60) == ["alive"]
        failed = [each for each in await runtime.timeline(run.run_id) if each.kind == "step_attempt_failed"]
    assert [(each.op, each.error and each.error.message) for each in failed] == [("b", text)]
    assert note.read_text() == "1\n2\n"


@pytest.mark.parametrize("through", [False, True])
@pytest.mark.parametrize("how", ["limit", "run", "timeout", "closing", "silence"])
async def test_a_process_is_killed_when_its_attempt_is_given_up(
    how: str, through: bool, tmp_path: Path
) -> None:
    note = tmp_path / "pid"
    left: list[str] = []

    async def middle(step: StepContext, call_next: Next) -> Any:
        try:
            return await call_next()
        finally:
            left.append("left")

    @workflow(step_middleware=[middle] if through else [])
    async def wf(ctx: Context) -> str:
        try:
            if how == "timeout":
                async with asyncio.timeout(1):
                    await ctx.step("spin", steps.spins, str(note))
            elif how == "silence":
                await ctx.step("spin", steps.falls_silent, str(note))
            else:
                await ctx.step("spin", steps.spins, str(note), timeout=1.5 if how == "limit" else None)
        except StepTimeout:
            return "too late"
        except TimeoutError:
            return "out of patience"
        return "?"

    async with Runtime("memory://", workflows=[wf], processes=1, shutdown_timeout=0) as runtime:
        run = await runtime.start(wf)
        if how in {"run", "closing"}:
            await until_true(lambda: note.exists() and note.read_text())
        if how == "run":
            await runtime.cancel(run.run_id, "enough")
            with pytest.raises(RunCancelled):
                await run.result(timeout=60)
        elif how != "closing":
            found = await run.result(timeout=60)
            assert found == ("out of patience" if how == "timeout" else "too late")
        if how != "closing" and note.exists():
            pid = int(note.read_text())
            await until_true(lambda: not is_alive(pid))
    assert how in {"timeout", "limit", "silence"} or not is_alive(int(note.read_text()))
    assert left == (["left"] if through else [])


async def test_no_more_processes_than_said_and_each_is_used_again() -> None:
    @workflow
    async def wf(ctx: Context) -> list[int]:
        # One that dies in the instant in which it is given a call costs an attempt.
        again = Retry(attempts=3, base=0)
        return await asyncio.gather(*(ctx.step("p", steps.pid_after, 0.01, retry=again) for _ in range(12)))

    async with Runtime("memory://", workflows=[wf], processes=2) as runtime:
        found = await (await runtime.start(wf)).result(timeout=60)
        assert 1 <= len(set(found)) <= 2
        # One that has died while it had nothing to do is noticed, and replaced.
        for pid in set(found):
            os.kill(pid, signal.SIGKILL)
            await until_true(partial(has_ended, pid))
        again = await (await runtime.start(wf)).result(timeout=60)
        assert not set(again) & set(found)


async def test_who_waits_for_a_process_can_be_cancelled_and_keeps_no_place(tmp_path: Path) -> None:
    @workflow
    async def wf(ctx: Context) -> int:
        spinning = asyncio.create_task(ctx.step("spin", steps.spins, str(tmp_path / "a")))
        waiting = asyncio.create_task(ctx.step("wait", steps.pid))
        with_limit = asyncio.create_task(ctx.step("late", steps.pid, timeout=30))
        await ctx.step("begun", until_there)
        waiting.cancel()
        spinning.cancel()
        await asyncio.wait({spinning, waiting})
        return await with_limit

    async def until_there() -> None:
        await until_true((tmp_path / "a").exists)

    assert await result_of(wf, processes=1) != os.getpid()


def test_uvloop_is_as_good() -> None:
    uvloop = pytest.importorskip("uvloop")

    @workflow
    async def wf(ctx: Context) -> int:
        return await steps.asynchronous(1)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(result_of(wf)) == 2


def test_processes_end_with_a_runtime_that_is_killed(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    program = textwrap.dedent(f"""
        import asyncio
        from duramen import Context, Runtime, workflow
        from tests.handlers.in_processes import spins

        @workflow
        async def wf(ctx: Context) -> None:
            await spins({str(note)!r})

        async def main():
            async with Runtime("memory://", workflows=[wf]) as runtime:
                await (await runtime.start(wf)).result()

        asyncio.run(main())
    """)
    file = tmp_path / "program.py"
    file.write_text(program)
    for how in (signal.SIGKILL, signal.SIGINT):
        note.unlink(missing_ok=True)
        started = subprocess.Popen(
            [sys.executable, str(file)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'python'}:{ROOT}"},
            start_new_session=True,
            stderr=subprocess.PIPE,
        )
        try:
            asyncio.run(until_true(lambda: note.exists() and note.read_text()))
            pid = int(note.read_text())
            # As a terminal does it: to the whole group.
            os.killpg(started.pid, how) if how == signal.SIGINT else started.send_signal(how)
            _, errors = started.communicate(timeout=30)
            asyncio.run(until_true(partial(is_gone, pid)))
        finally:
            started.kill()
            started.wait()
        if how == signal.SIGINT:
            assert errors.decode().rstrip().endswith("KeyboardInterrupt")


def test_steps_of_the_program_itself_run_in_processes(tmp_path: Path) -> None:
    file = tmp_path / "the_program.py"
    file.write_text(
        textwrap.dedent("""
        import asyncio, os
        from duramen import Context, Runtime, step, workflow

        @step(where="process")
        def elsewhere(parent: int) -> bool:
            return os.getpid() != parent

        @workflow
        async def wf(ctx: Context) -> bool:
            return await elsewhere(os.getpid())

        async def main():
            async with Runtime("memory://", workflows=[wf]) as runtime:
                print(await (await runtime.start(wf)).result())

        if __name__ == "__main__":
            asyncio.run(main())
    """)
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python")}
    for command in ([str(file)], ["-m", "the_program"]):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr


# -- what is refused -----------------------------------------------------------------------------------------


def test_a_function_that_no_other_process_finds_is_refused_when_it_is_declared() -> None:
    class Service:
        def method(self) -> None: ...

    def local() -> None: ...

    for bad in (lambda: None, local, partial(local), Service().method, print):
        with pytest.raises(WorkflowDefinitionError, match="that another process can import"):
            step(where="process", name="bad")(bad)
    with pytest.raises(WorkflowDefinitionError, match="'auto' or 'process'"):
        step(where="thread")(local)  # type: ignore[call-overload]
    for bad in (0, -1, True, "two"):
        with pytest.raises(InvalidArgument, match="processes"):
            Runtime("memory://", processes=bad)  # type: ignore[arg-type]


async def test_a_transaction_does_not_run_in_a_process(tmp_path: Path) -> None:
    @workflow
    async def wf(ctx: Context) -> None:
        await ctx.transaction("t", steps.Static.method)  # type: ignore[arg-type]

    with pytest.raises(RunFailed, match="leave where='process' out"):
        await result_of(wf)
