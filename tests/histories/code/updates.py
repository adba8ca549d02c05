"""Updates and completion tokens. Frozen: see steps.py."""

from duramen import Context, Runtime, workflow
from duramen.errors import UpdateFailed, UpdateRejected, UpdateTimeout
from tests.histories.case import case, until


async def note(text: str) -> str:
    return text


@workflow
async def updates(ctx: Context) -> list[str]:
    taken: list[str] = []

    def positive(number: int) -> None:
        if number < 0:
            raise ValueError("negative")

    async def step(number: int) -> str:
        taken.append(await ctx.step("note", note, f"step {number}"))
        return taken[-1]

    def plain(number: int) -> int:
        taken.append(f"plain {number} {ctx.random() < 1}")
        return len(taken)

    def fails() -> None:
        raise LookupError("nowhere")

    async def waits() -> str:
        taken.append(await ctx.wait_for_event("told", str))
        return taken[-1]

    ctx.on_update("step", step, validate=positive)
    ctx.on_update("plain", plain)
    ctx.on_update("fails", fails)
    ctx.on_update("waits", waits)
    await ctx.wait_for_event("close")
    return taken


async def send(runtime: Runtime, run_id: str) -> None:
    await runtime.start(updates, run_id=run_id)
    assert await runtime.update(run_id, "plain", 1, timeout=20) == 1
    assert await runtime.update(run_id, "step", 2, timeout=20) == "step 2"
    try:
        await runtime.update(run_id, "step", -1, timeout=20)
    except UpdateRejected:
        pass
    try:
        await runtime.update(run_id, "fails", timeout=20)
    except UpdateFailed:
        pass
    try:
        await runtime.update(run_id, "waits", update_id="waits", timeout=0.1)
    except UpdateTimeout:
        pass


@case(updates)
async def updates_applied(runtime: Runtime, run_id: str) -> None:
    await send(runtime, run_id)
    await runtime.signal(run_id, "told", "at last")
    await runtime.update(run_id, "waits", update_id="waits", timeout=20)
    await runtime.signal(run_id, "close")
    await runtime.result(run_id, timeout=20)


@case(updates)
async def update_accepted(runtime: Runtime, run_id: str) -> None:
    await send(runtime, run_id)
    await until(runtime, run_id, status="waiting")


@case(updates)
async def update_left_behind(runtime: Runtime, run_id: str) -> None:
    await send(runtime, run_id)
    await runtime.signal(run_id, "close")
    await runtime.result(run_id, timeout=20)


TEXTS: list[str] = []


@workflow
async def tokens(ctx: Context) -> list[int]:
    first, second = ctx.token(int), ctx.token(int, id="second")
    TEXTS[:] = [first.text, second.text]
    return [await first.result(), await second.result()]


@case(tokens)
async def tokens_completed(runtime: Runtime, run_id: str) -> None:
    await runtime.start(tokens, run_id=run_id)
    await until(runtime, run_id, status="waiting")
    for number, text in enumerate(TEXTS):
        await runtime.complete(text, number)
    await runtime.result(run_id, timeout=20)


@case(tokens)
async def token_awaited(runtime: Runtime, run_id: str) -> None:
    await runtime.start(tokens, run_id=run_id)
    await until(runtime, run_id, status="waiting")
    await runtime.complete(TEXTS[0], 5)
    await until(runtime, run_id, status="waiting", journal_len=4)


@case(tokens)
async def token_failed(runtime: Runtime, run_id: str) -> None:
    run = await runtime.start(tokens, run_id=run_id)
    await until(runtime, run_id, status="waiting")
    await runtime.fail(TEXTS[1], "no")
    await runtime.complete(TEXTS[0], 5)
    try:
        await run.result(timeout=20)
    except Exception as error:  # noqa: BLE001 - how it ends is recorded
        print(error)
