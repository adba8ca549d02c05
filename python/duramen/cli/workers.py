"""`duramen workers`: who drives the runs of a store."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from . import tables
from .options import AsJson, Store, open_store, perform
from .output import print_json, stdout

if TYPE_CHECKING:
    from duramen import WorkerView

__all__ = ["workers"]


def workers(
    store: Store,
    every: Annotated[bool, typer.Option("--all", help="Also those of the last day that have ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the processes that drive runs: what they serve, their last sign of life, their runs in hand."""

    async def work() -> list[WorkerView]:
        async with open_store(store) as runtime:
            return await runtime.workers()

    # Whoever holds runs and is not alive is what people look for.
    found = [worker for worker in perform(work()) if every or worker.alive or worker.runs]
    if as_json:
        print_json(found)
    elif found:
        console = stdout()
        for line in tables.workers_list(found, datetime.now(UTC), console.width):
            console.print(line, soft_wrap=True)
    else:
        stdout().print("no process drives runs here")
