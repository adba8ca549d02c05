"""The command line: `duramen`. Written with public names only, as anybody could write it.

Nothing that `import duramen` loads may import this package: typer and rich belong to the command line alone.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line and end the process with a code that means something; what `duramen` starts."""
    # Not at the top: `duramen.cli.timeline` can be used without building the whole program.
    import sys

    from .guard import guarded

    sys.exit(guarded(_program))


def _program() -> None:
    from .app import app

    app(prog_name="duramen")
