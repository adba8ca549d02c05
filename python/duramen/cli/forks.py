"""`duramen runs fork` and `duramen runs diff`: runs made of other runs, and how they differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from duramen.errors import InvalidArgument

from . import tables
from .options import AsJson, RunId, Store, json_of, open_store, perform
from .output import harmless, plain, print_json, stdout

if TYPE_CHECKING:
    from duramen import OperationDiff, RunDiff, RunHandle

__all__ = ["diff", "fork"]


def fork(
    run: RunId,
    store: Store,
    from_operation: Annotated[
        str | None,
        typer.Option(help="The first operation that is carried out anew; else all are.", show_default=False),
    ] = None,
    new_run_id: Annotated[str | None, typer.Option(help="The new run's id.", show_default=False)] = None,
    input: Annotated[  # noqa: A002 - the option's name
        str | None, typer.Option(help="Another input, as JSON.", show_default=False)
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option(help="OPERATION=JSON: replace a recorded outcome; may be repeated.", show_default=False),
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="Version of the workflow; else that of the run.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Start a run with the beginning of another's journal; a worker takes it."""
    options: dict[str, Any] = {}
    if input is not None:
        options["input"] = json_of("input", input)
    overrides = dict(_override(each) for each in override or ())

    async def work() -> RunHandle[Any]:
        async with open_store(store) as runtime:
            return await runtime.fork(
                run,
                from_operation=from_operation,
                new_run_id=new_run_id,
                overrides=overrides,
                version=version,
                drive=False,
                **options,
            )

    made = perform(work())
    if as_json:
        print_json({"run_id": made.run_id, "created": made.created, "fork_of": run})
    elif made.created:
        stdout().print(f"forked: {harmless(made.run_id)}", soft_wrap=True, markup=False, highlight=False)
    else:
        stdout().print(f"it was there already: {harmless(made.run_id)}", soft_wrap=True, markup=False)


def _override(text: str) -> tuple[str, Any]:
    op, separator, value = text.partition("=")
    if not (op and separator):
        raise InvalidArgument(f"--override {text!r}: give OPERATION=JSON, such as price=99")
    return op, json_of(f"override of {op!r}", value)


def diff(
    one: RunId,
    other: Annotated[str, typer.Argument(help="Id of the run to compare with.", show_default=False)],
    store: Store,
    as_json: AsJson = False,
) -> None:
    """Show where two runs part, and which operations came to something else."""

    async def work() -> RunDiff:
        async with open_store(store) as runtime:
            return await runtime.diff(one, other)

    found = perform(work())
    if as_json:
        differences = [_plain(each) for each in found.differences]
        parting = None if found.parting is None else _plain(found.parting)
        print_json({"one": one, "other": other, "parting": parting, "differences": differences})
        return
    console = stdout()
    first, *rows = str(found).split("\n")
    console.print(harmless(first), soft_wrap=True, markup=False, highlight=False)
    if rows:
        console.print(_table(found))


def _plain(each: OperationDiff) -> dict[str, Any]:
    return {"op": each.op, "one": plain(each.one), "other": plain(each.other)}


def _table(found: RunDiff) -> Table:
    table = Table(box=None, pad_edge=False, header_style=tables.QUIET)
    for head in ("operation", found.one, found.other):
        table.add_column(harmless(head), overflow="fold")
    for each in found.differences:
        table.add_row(*(harmless(text) for text in each.words()))
    return table
