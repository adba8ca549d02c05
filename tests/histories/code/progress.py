"""Steps that tell of their progress. Frozen, as the others are."""

from typing import Any

from duramen import Context, Retry, step_context, workflow
from tests.histories.case import play_to_the_end


@workflow(retry=Retry(attempts=2, base=0))
async def step_progress(ctx: Context) -> list[Any]:
    async def imports() -> Any:
        here = step_context()
        before = here.progress
        here.heartbeat({"rows": 10 * here.attempt})
        if here.attempt == 1:
            raise ConnectionError("not yet")
        return before

    async def counts() -> int:
        step_context().heartbeat(1)
        return 2

    return [await ctx.step("import", imports), await ctx.step("count", counts), ctx.random() < 1]


play_to_the_end(step_progress)
