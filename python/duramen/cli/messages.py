"""`duramen signal` and `duramen approve`."""

from __future__ import annotations

from typing import Annotated

import typer

from duramen import SignalResult
from duramen.errors import InvalidArgument, UnknownRun

from .exits import Exit
from .options import AsJson, RunId, Store, open_store, parsed_json, perform
from .output import complain, print_json, stdout

__all__ = ["approve", "signal"]

_SAID = {
    SignalResult.DELIVERED: "delivered: the run waited for it",
    SignalResult.BUFFERED: "buffered: kept until the run asks for it",
    SignalResult.DUPLICATE: "duplicate: it was there already, nothing changed",
}


def signal(
    run: RunId,
    name: Annotated[str, typer.Argument(help="Name of the event.", show_default=False)],
    store: Store,
    payload: Annotated[str, typer.Argument(help="Its payload as JSON.")] = "null",
    signal_id: Annotated[
        str | None,
        typer.Option("--id", help="Id of the signal: the same id counts once.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send an event to a run. It may come early, and twice under one id."""
    value = parsed_json(payload, "payload")

    async def work() -> SignalResult:
        async with open_store(store) as runtime:
            return await runtime.signal(run, name, value, signal_id=signal_id)

    _say(run, perform(work()), as_json=as_json)


def approve(
    run: RunId,
    store: Store,
    approval: Annotated[
        str | None,
        typer.Argument(help="Id of the approval; not needed if the run waits for one.", show_default=False),
    ] = None,
    reject: Annotated[bool, typer.Option("--reject", help="Decide against it.")] = False,
    feedback: Annotated[str | None, typer.Option(help="Words for the workflow.", show_default=False)] = None,
    by: Annotated[str | None, typer.Option(envvar="USER", help="Who decides.", show_default="you")] = None,
    as_json: AsJson = False,
) -> None:
    """Decide about an approval that a run waits for: yes, unless --reject."""

    async def work() -> SignalResult:
        async with open_store(store) as runtime:
            chosen = approval
            if chosen is None:
                open_ones = (await runtime.get(run)).waiting_approvals
                if len(open_ones) != 1:
                    raise InvalidArgument(
                        f"run {run!r} waits for {len(open_ones)} approvals; name one"
                        + (f" of {', '.join(open_ones)}" if open_ones else "")
                    )
                chosen = open_ones[0]
            return await runtime.approve(run, chosen, not reject, feedback=feedback, by=by)

    _say(run, perform(work()), as_json=as_json)


def _say(run: str, result: SignalResult, *, as_json: bool) -> None:
    if as_json:
        print_json({"run_id": run, "result": result})
    elif result in _SAID:
        stdout().print(_SAID[result])
    if result is SignalResult.NOT_FOUND:
        if as_json:
            raise typer.Exit(Exit.NOT_FOUND)
        raise UnknownRun(run)
    if result is SignalResult.FINISHED:
        if not as_json:
            complain(f"run {run!r} has ended: nothing was kept")
        raise typer.Exit(Exit.FAILED)
