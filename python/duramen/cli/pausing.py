"""`duramen runs pause` and `duramen runs resume`: one run, or all that a filter finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from duramen import PauseResult, ResumeResult
from duramen.errors import InvalidArgument, InvalidId, UnknownRun

from .exits import Exit
from .options import AsJson, RunId, Store, json_of, open_store, perform
from .output import complain, print_json, stdout

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from duramen import Runtime

__all__ = ["pause", "resume", "skip"]

_Run = Annotated[
    str | None,
    typer.Argument(help="The run's id; without it, all that the options find.", show_default=False),
]
_Workflow = Annotated[str | None, typer.Option(help="All runs of this workflow.", show_default=False)]
_Version = Annotated[
    str | None, typer.Option(help="Of these only those of this version.", show_default=False)
]
_Tag = Annotated[str | None, typer.Option(help="All runs with this tag.", show_default=False)]
_Prefix = Annotated[str | None, typer.Option(help="All runs with ids that begin so.", show_default=False)]


def pause(
    store: Store,
    run: _Run = None,
    workflow: _Workflow = None,
    version: _Version = None,
    tag: _Tag = None,
    prefix: _Prefix = None,
    reason: Annotated[str, typer.Option(help="Why; lists of runs show it.")] = "",
    by: Annotated[str | None, typer.Option(help="Who wants it.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Let nothing new of runs start; their steps in flight end and are recorded."""
    if run is not None:
        _one(run, store, lambda runtime: runtime.pause(run, reason, by=by), as_json=as_json)
        return
    filters = _filters(workflow, version, tag, prefix)
    _many(store, lambda runtime: runtime.pause_many(reason, by=by, **filters), "paused", as_json=as_json)


def resume(
    store: Store,
    run: _Run = None,
    workflow: _Workflow = None,
    version: _Version = None,
    tag: _Tag = None,
    prefix: _Prefix = None,
    as_json: AsJson = False,
) -> None:
    """Let paused runs go on; workers take them."""
    if run is not None:
        _one(run, store, lambda runtime: runtime.resume(run, drive=False), as_json=as_json)
        return
    filters = _filters(workflow, version, tag, prefix)
    _many(store, lambda runtime: runtime.resume_many(**filters), "resumed", as_json=as_json)


def skip(
    run: RunId,
    result: Annotated[str, typer.Argument(help="What the step gives back, as JSON.")],
    store: Store,
    operation: Annotated[
        str | None, typer.Option(help="Which step, if there are several.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Give the step for which a run is paused a result; a worker takes the run."""
    value = json_of("result", result)

    async def work() -> str | None:
        async with open_store(store) as runtime:
            try:
                await runtime.skip(run, value, operation=operation, drive=False)
            except InvalidId:
                raise
            except InvalidArgument as error:
                # The run is not in a state for this.
                return str(error)
            return None

    objection = perform(work())
    if as_json:
        print_json({"run_id": run, "done": objection is None, "why_not": objection})
    elif objection is None:
        stdout().print(f"skipped: {run}", soft_wrap=True)
    else:
        complain(objection)
    if objection is not None:
        raise typer.Exit(Exit.FAILED)


def _filters(workflow: str | None, version: str | None, tag: str | None, prefix: str | None) -> Any:
    return {"workflow": workflow, "version": version, "tag": tag, "id_prefix": prefix}


_REFUSED = frozenset(
    {PauseResult.FINISHED, PauseResult.ALREADY_PAUSED, ResumeResult.FINISHED, ResumeResult.NOT_PAUSED}
)


def _one(
    run: str, store: str, call: Callable[[Runtime], Awaitable[PauseResult | ResumeResult]], *, as_json: bool
) -> None:
    async def work() -> PauseResult | ResumeResult:
        async with open_store(store) as runtime:
            result = await call(runtime)
            if result in {PauseResult.NOT_FOUND, ResumeResult.NOT_FOUND}:
                raise UnknownRun(run)
            return result

    result = perform(work())
    refused = result in _REFUSED
    if as_json:
        print_json({"run_id": run, "done": not refused, "result": result.value})
    elif refused:
        complain(f"run {run!r}: {result.value.replace('_', ' ')}: there is nothing to do")
    else:
        stdout().print(f"{result.value}: {run}", soft_wrap=True)
    if refused:
        raise typer.Exit(Exit.FAILED)


def _many(store: str, call: Callable[[Runtime], Awaitable[int]], said: str, *, as_json: bool) -> None:
    async def work() -> int:
        async with open_store(store) as runtime:
            return await call(runtime)

    count = perform(work())
    if as_json:
        print_json({"count": count})
    else:
        stdout().print(f"{said}: {count}")
