"""Items of streams. Frozen: see steps.py."""

from duramen import Context, step_context, workflow
from tests.histories.case import play_to_the_end


async def count(upto: int) -> int:
    for number in range(upto):
        await step_context().stream("numbers", int).write(number)
    return upto


@workflow
async def streams(ctx: Context) -> int:
    log = ctx.stream("log", str)
    await log.write("begins")
    await ctx.stream("other", keep=1).write({"a": 1})
    await log.write("counts")
    counted = await ctx.step("count", count, 3)
    await log.write("ends")
    return counted


play_to_the_end(streams)
