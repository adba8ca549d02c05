"""Runs made of other runs, and how they differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from duramen._handlers.inputs import NO_INPUT

from ._calls import Calls

if TYPE_CHECKING:
    from collections.abc import Mapping

    from duramen._runtime.comparing import RunDiff
    from duramen._runtime.views import RunHandle

__all__ = ["ForkCalls"]


class ForkCalls(Calls):
    """See `Runtime`."""

    async def fork(
        self,
        run_id: str,
        *,
        from_operation: str | None = None,
        new_run_id: str | None = None,
        input: Any = NO_INPUT,  # noqa: A002
        overrides: Mapping[str, Any] | None = None,
        version: str | None = None,
        drive: bool = True,
    ) -> RunHandle[Any]:
        """Start a run that begins with a part of another's journal, and goes on from there by itself.

        The other run may be live, ended or stuck, and is left as it is. What is kept is not done again: the
        new run gets the recorded outcomes up to the operation, in their order, and everything from there on
        is carried out anew, with idempotency keys of its own. It has the tags, memo and queue of the other
        run, none of its messages, and its origin is ``fork:RUN``. Its clock is that of the journal, so a
        deadline that has passed there is over.

        Args:
            run_id: the run whose journal it is.
            from_operation: the first operation that is carried out anew. Default: all are; with `overrides`,
                all that follow the last of these.
            new_run_id: the new run's id; if it exists already, that run is returned with ``created=False``.
                Default: a new one.
            input: another input. What is kept was recorded with the former one: code that asks for something
                else with this one parks the fork with the difference.
            overrides: recorded outcomes to replace, by operation id: of a step another result, or an
                exception, which is its failure; of an event another payload; of an approval True or False.
            version: the version of the workflow. Default: the newest one that is registered here, or if there
                is none, that of the other run.
            drive: go on with it in this process if its workflow is registered here.

        Raises:
            UnknownRun: there is no such run.
            InvalidArgument: there is no such operation; what an override asks cannot be; a child that the
                kept part started had not ended.
            UnknownWorkflow: there is no such version here.
            RunIdConflict: `new_run_id` is that of a run of another workflow.

        Example:
            >>> import asyncio
            >>> from duramen import Context, Runtime, workflow
            >>> async def price(item: str) -> int:
            ...     return 20
            >>> @workflow
            ... async def order(ctx: Context, item: str) -> str:
            ...     cents = await ctx.step("price", price, item)
            ...     return "bought" if cents < 50 else "too dear"
            >>> async def main() -> None:
            ...     async with Runtime("memory://", workflows=[order]) as runtime:
            ...         await runtime.run(order, "tea", run_id="order:1")
            ...         what_if = await runtime.fork("order:1", overrides={"price": 99}, new_run_id="what-if")
            ...         print(await what_if.result())
            ...         print(await runtime.diff("order:1", "what-if"))
            >>> asyncio.run(main())
            too dear
            they part at 'price': completed 20, completed 99
                       order:1            what-if
            price      completed 20       completed 99
            (the run)  finished 'bought'  finished 'too dear'
        """
        return await self._services.here(
            self._services.forking.fork,
            run_id,
            from_operation=from_operation,
            new_run_id=new_run_id,
            input=input,
            overrides=overrides,
            version=version,
            drive=drive,
        )

    async def diff(self, one: str, other: str) -> RunDiff:
        """Compare the journals of two runs: where they part, and what each operation came to.

        Entries that tell a handler nothing (attempts, opened waits) and those that a `retry` took back are
        left out. ``str()`` of the answer is a table for people.

        Raises:
            UnknownRun: one of them does not exist.
        """
        return await self._services.here(self._services.comparing.diff, one, other)
