"""Code that was changed while runs were under way. Frozen: see steps.py."""

from duramen import Context, Runtime, workflow
from tests.histories.case import case, until
from tests.histories.code.endings import Made


async def note(text: str) -> str:
    return text


@workflow(name="changed_order")
async def before(ctx: Context) -> list[str]:
    told = [await ctx.step("reserve", note, "reserved")]
    told.append(await ctx.wait_for_event("paid", str))
    return [*told, await ctx.step("ship", note, "shipped")]


@workflow(name="changed_order")
async def after(ctx: Context) -> list[str]:
    told = [await ctx.step("reserve", note, "reserved")]
    if ctx.patched("check"):
        told.append(await ctx.step("check", note, "checked"))
    told.append(await ctx.wait_for_event("paid", str))
    if ctx.patched("insure"):
        told.append(await ctx.step("insure", note, "insured"))
    return [*told, await ctx.step("ship", note, "shipped")]


@case(after)
async def patched(runtime: Runtime, run_id: str) -> None:
    await runtime.start(after, run_id=run_id)
    await until(runtime, run_id, status="waiting")
    await runtime.signal(run_id, "paid", "paid")
    await until(runtime, run_id, status="completed")


@case(after)
async def patched_under_way(runtime: Runtime, run_id: str) -> None:
    async with Runtime("memory://patched", workflows=[before]) as older:
        await older.start(before, run_id=run_id)
        await until(older, run_id, status="waiting")
        async with Runtime("memory://patched", workflows=[after], warm=0) as newer:
            await newer.signal(run_id, "paid", "paid")
            await newer.sweep()
            exported = dict(await newer.export(run_id))
    raise Made(exported)
