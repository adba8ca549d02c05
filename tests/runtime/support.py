"""What the tests of the calls share: a runtime of their workflows on each store, and waiting for a state."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from duramen import Runtime

Body = Callable[[Runtime], Awaitable[None]]


async def until(condition: Callable[[], Awaitable[bool]], timeout: float = 5) -> None:
    async with asyncio.timeout(timeout):
        while not await condition():  # noqa: ASYNC110 - the store tells nobody
            await asyncio.sleep(0.005)


async def status_is(runtime: Runtime, run_id: str, status: str) -> None:
    async def look() -> bool:
        return (await runtime.get(run_id)).status == status

    await until(look)


def scenarios(workflows: list[Any]) -> Callable[[Body], Callable[[str], None]]:
    """A decorator: the test is given a runtime of these workflows, on every store in turn."""

    def scenario(body: Body) -> Callable[[str], None]:
        def test(any_url: str) -> None:
            async def main() -> None:
                async with Runtime(any_url, workflows=workflows) as runtime:
                    await body(runtime)

            asyncio.run(main())

        test.__name__ = body.__name__
        test.__doc__ = body.__doc__
        return test

    return scenario
