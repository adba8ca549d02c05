import asyncio

from duramen import Context, Runtime, step, workflow


@step
async def greet(name: str) -> str:
    return f"Hello, {name}!"


@workflow
async def hello(ctx: Context, name: str) -> str:
    greeting = await greet(name)  # runs once; its result is kept in app.db
    await ctx.sleep(5)  # a durable timer: the process may end here and another one go on
    return greeting


async def main() -> None:
    async with Runtime("sqlite:///app.db", workflows=[hello]) as runtime:
        run = await runtime.start(hello, "world", run_id="hello:1")
        print(await run.result(timeout=60))


asyncio.run(main())
