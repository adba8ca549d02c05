"""`duramen migrate`."""

from __future__ import annotations

from typing import Annotated

import typer

from duramen import Runtime, SchemaView

from .options import AsJson, perform
from .output import print_json, stdout

__all__ = ["migrate"]


def migrate(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            envvar="DURAMEN_URL",
            help="URL of the store, for instance sqlite:///app.db.",
            show_default=False,
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Bring a store's schema up to date, or make an empty store. Safe to repeat."""

    async def work() -> SchemaView:
        return await Runtime(url).migrate()

    schema = perform(work())
    if as_json:
        print_json(schema)
    elif schema.applied:
        stdout().print(f"applied {', '.join(schema.applied)}; the schema is at {schema.found}")
    else:
        stdout().print(f"nothing to do: the schema is at {schema.found}")
