"""Workflows as a careless change would leave them: each with the history that must show it.

Unlike the frozen code these may be edited.
"""

import asyncio
from typing import Any

from duramen import Context, WorkflowDef, workflow
from tests.histories.code.concurrency import after
from tests.histories.code.endings import note, stuck_after
from tests.histories.code.steps import pack, send

CHANGES: list[tuple[str, WorkflowDef[Any, Any], int, str]] = []


def change(history: str, index: int, text: str) -> Any:
    """Declare that the history does not fit a handler: at which entry, and a part of the text."""

    def declare(handler: Any) -> Any:
        name = handler.__name__ if not hasattr(handler, "handler") else ""
        flow = handler if not name else workflow(name=NAMES.get(history, history))(handler)
        CHANGES.append((history, flow, index, text))
        return handler

    return declare


# Names of workflows whose history is named otherwise.
NAMES = {"event_late": "event", "approval_yes": "approval"}


@change(
    "step_ok",
    1,
    'expected (recorded) step_completed of "pack", found a handler that has not asked for it; it waits for '
    'a step "wrap"',
)
async def renamed(ctx: Context, order: str) -> str:
    return await ctx.step("send", send, await ctx.step("wrap", pack, order))


@change("step_ok", 2, 'expected (recorded) step_completed of "send", found a handler that returned')
async def shortened(ctx: Context, order: str) -> str:
    await ctx.step("pack", pack, order)
    return "done"


@change("step_ok", 3, "expected (recorded) run_finished, found a handler that goes on")
async def lengthened(ctx: Context, order: str) -> str:
    text = await ctx.step("send", send, await ctx.step("pack", pack, order))
    return await ctx.step("note", note, text)


@change("step_ok", 3, "expected (recorded) run_finished, found a handler that raised")
async def failing(ctx: Context, order: str) -> str:
    await ctx.step("send", send, await ctx.step("pack", pack, order))
    raise LookupError("nowhere")


@change("step_ok", 3, 'the handler returned something else: expected (recorded) "sent order:1 (')
async def other_output(ctx: Context, order: str) -> str:
    await ctx.step("send", send, await ctx.step("pack", pack, order))
    return "sent"


@change("run_failed", 2, "the handler raised something else: expected (recorded) LookupError: nowhere, found")
async def other_error(ctx: Context) -> None:
    await ctx.step("note", note, "before")
    raise PermissionError("no")


@change("event_late", 1, 'while waiting for "event:paid", found a handler that waits there for "event:payed"')
async def other_event(ctx: Context) -> str:
    return await ctx.wait_for_event("payed", str)


@change("approval_yes", 1, 'expected (recorded) approval_requested of "approval-1", found')
async def other_kind(ctx: Context) -> str:
    return await ctx.step("approval-1", note, "")


@change(
    "values", 2, 'expected (recorded) value_recorded of "uuid-1", found a handler that asked for "random-1"'
)
async def other_order(ctx: Context) -> list[str]:
    return [repr(ctx.now()), repr(ctx.random()), repr(ctx.uuid())]


@change("sleep", 1, "expected (recorded) value_recorded of")
async def other_value(ctx: Context) -> str:
    await ctx.sleep(0.02)
    return "slept"


@change("gather", 2, 'expected (recorded) step_completed of "middle", found')
async def one_after_the_other(ctx: Context) -> list[str]:
    return [await ctx.step(name, after, 0.0, name) for name in ("fast", "slow", "middle")]


@change("race", 2, 'expected (recorded) step_completed of "after", found')
async def other_winner(ctx: Context) -> str:
    tasks = [asyncio.ensure_future(ctx.step(name, after, 0.0, name)) for name in ("slow", "fast")]
    await asyncio.wait(tasks)
    return await ctx.step("after", after, 0.0, "")


change(
    "stuck",
    1,
    'expected (recorded) step_completed of "charge", found a handler that has not asked for it; it waits for '
    'a step "pay"',
)(stuck_after)


@change(
    "streams",
    2,
    'expected (recorded) stream_written of "stream-2" into the stream "other", found a handler that writes '
    'there to the stream "log"',
)
async def other_stream(ctx: Context) -> int:
    await ctx.stream("log").write("begins")
    await ctx.stream("log").write("counts")
    return 3
