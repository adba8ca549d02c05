"""`duramen update` and `duramen query`: what runs answer."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .options import AsJson, RunId, Store, json_of, open_store, perform
from .output import print_json
from .target import find_runtime

__all__ = ["query", "update"]


def update(
    run: RunId,
    name: Annotated[str, typer.Argument(help="Name of the update.", show_default=False)],
    store: Store,
    payload: Annotated[str, typer.Argument(help="Its payload as JSON.")] = "null",
    update_id: Annotated[
        str | None,
        typer.Option("--id", help="Id of the update: the same id is applied once.", show_default=False),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the answer.", min=0)] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Have a run apply an update, and print its answer as JSON. A worker must be there to drive the run."""
    value = json_of("payload", payload)

    async def work() -> Any:
        async with open_store(store) as runtime:
            return await runtime.update(run, name, value, update_id=update_id, timeout=timeout)

    answer = perform(work())
    print_json({"run_id": run, "answer": answer} if as_json else answer)


def query(
    run: RunId,
    name: Annotated[str, typer.Argument(help="Name of the query.", show_default=False)],
    app: Annotated[
        str,
        typer.Option(
            "--app",
            "-a",
            envvar="DURAMEN_APP",
            metavar="MODULE:RUNTIME",
            help="Where the Runtime with the run's workflow is, for instance app.main:runtime.",
            show_default=False,
        ),
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[JSON]...", help="Its arguments as JSON.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask a run what its handler knows, and print the answer as JSON. Nothing is written or driven."""
    values = [json_of("argument", argument) for argument in arguments or ()]
    runtime = find_runtime(app)

    async def work() -> Any:
        async with runtime:
            return await runtime.query(run, name, *values)

    answer = perform(work())
    print_json({"run_id": run, "answer": answer} if as_json else answer)
