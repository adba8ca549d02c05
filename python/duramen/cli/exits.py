"""What exit codes mean, and how an error becomes one sentence and a code."""

from __future__ import annotations

from enum import IntEnum

from duramen import errors

__all__ = ["Exit", "code_of"]


class Exit(IntEnum):
    """The exit codes of `duramen`; docs/cli.md lists them for people."""

    OK = 0
    FAILED = 1
    """The run failed, or is not in a state in which what was asked for makes sense."""
    USAGE = 2
    """The command line or a value in it cannot be used."""
    NOT_FOUND = 3
    """There is no such run, workflow, module or object in it."""
    STORE = 4
    """The store cannot be reached, read, written to, or its schema does not fit."""
    APPLICATION = 5
    """The application cannot be imported, or has no workflow that a worker could drive."""
    OUTPUT = 6
    """What there is to print cannot be written: the disk is full, or standard output is closed."""
    DEFECT = 70
    """An error that nobody expected."""
    INTERRUPTED = 130
    """Ctrl-C, as shells count it."""
    NO_READER = 141
    """Whoever read the output has gone (`| head`): as a program that SIGPIPE ended."""


# The first class that matches decides.
_CODES: tuple[tuple[type[BaseException], Exit], ...] = (
    (errors.StoreError, Exit.STORE),
    (errors.UnknownRun, Exit.NOT_FOUND),
    (errors.UnknownSchedule, Exit.NOT_FOUND),
    (errors.UnknownWorkflow, Exit.NOT_FOUND),
    (errors.UnknownQuery, Exit.NOT_FOUND),
    (errors.InvalidArgument, Exit.USAGE),
    (errors.WorkflowDefinitionError, Exit.USAGE),
    (errors.SerializationError, Exit.USAGE),
    (errors.SignalRefused, Exit.USAGE),
    (errors.EventRejected, Exit.USAGE),
)


def code_of(error: BaseException) -> Exit:
    """The exit code for an error.

    >>> code_of(errors.UnknownRun("order:42")), code_of(errors.StoreLocked("busy"))
    (<Exit.NOT_FOUND: 3>, <Exit.STORE: 4>)
    """
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.FAILED)
