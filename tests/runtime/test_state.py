"""Changes of `ctx.state` reach live listeners as RFC 6902 patches, wherever the run is driven."""

import asyncio
from typing import Any

import pytest
from jsonpatch import apply_patch
from pydantic import BaseModel

from duramen import Context, Event, Runtime, workflow
from tests.runtime.workflows import add


class Progress(BaseModel):
    done: int = 0
    names: list[str] = []
    ok: bool | int = 1


@workflow(state=Progress)
async def reporting(ctx: Context[Progress], count: int) -> int:
    for number in range(count):
        ctx.state.done = await ctx.step(f"s{number}", add, number, 1)
        ctx.state.names.append(f"n{number}")
    ctx.state.ok = True  # equal to 1 in Python, not in JSON
    await ctx.wait_for_event("go")
    ctx.state = Progress(done=-1)
    return count


def changes(events: list[Event]) -> list[Any]:
    return [event.data for event in events if event.kind == "state_changed"]


def rebuilt(patches: list[Any]) -> Any:
    state: Any = None
    for patch in patches:
        state = apply_patch(state, patch)
    return state


def test_the_driver_of_a_run_is_told_each_change(url: str) -> None:
    async def main() -> None:
        async with Runtime(url, workflows=[reporting]) as runtime:
            result = await runtime.run(reporting, 2, run_id="r")
            assert result.kind == "paused"
            patches = changes(list(result.events))
            assert patches[0][0]["path"] == "", "the first is the whole"
            later = [op for patch in patches[1:] for op in patch]
            assert {"op": "replace", "path": "/done", "value": 2} in later
            assert {"op": "add", "path": "/names/1", "value": "n1"} in later
            view = await runtime.get("r")
            assert isinstance(view.state, Progress)
            assert rebuilt(patches) == {"done": 2, "names": ["n0", "n1"], "ok": True}
            assert rebuilt(patches)["ok"] is True

    asyncio.run(main())


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_listener_can_follow_from_here_or_from_elsewhere(url: str, elsewhere: bool) -> None:
    async def main() -> None:
        async with Runtime(url, workflows=[reporting]) as runtime, Runtime(url) as other:
            events: list[Event] = []
            waiting = asyncio.Event()

            async def follow() -> None:
                async for event in (other if elsewhere else runtime).events("r"):
                    events.append(event)
                    if event.kind == "wait_opened":
                        waiting.set()

            run = await runtime.enqueue(reporting, 3, run_id="r")
            following = asyncio.create_task(follow())
            await runtime.sweep()
            await asyncio.wait_for(waiting.wait(), 10)
            await runtime.signal("r", "go", None)
            await runtime.sweep()
            assert await run.result(timeout=10) == 3
            await asyncio.wait_for(following, 10)
            patches = changes(events)
            assert patches[0][0]["path"] == ""
            assert all(patches)
            assert rebuilt(patches) == {"done": -1, "names": [], "ok": 1}
            assert rebuilt(patches)["ok"] is not True
            quiet = [event async for event in other.events("r", live=False)]
            assert changes(quiet) == []
            late = [event async for event in other.events("r")]
            assert changes(late) == [
                [{"op": "replace", "path": "", "value": {"done": -1, "names": [], "ok": 1}}]
            ]

    asyncio.run(main())


def test_a_replay_tells_nothing_twice(url: str) -> None:
    async def main() -> None:
        async with Runtime(url, workflows=[reporting]) as first:
            await first.run(reporting, 2, run_id="r")
        async with Runtime(url, workflows=[reporting]) as second:
            await second.signal("r", "go", None)
            swept = await second.sweep(include_events=True)
            # Whole, for this listener is new; not once for each change that was replayed.
            assert [op["path"] for patch in changes(list(swept.events)) for op in patch] == [""]

    asyncio.run(main())
