"""The command line: `duramen`. Written with public names only, as anybody could write it.

Nothing that `import duramen` loads may import this package: typer and rich belong to the command line alone.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line; what `duramen` starts."""
    # Not at the top: `duramen.cli.timeline` can be used without building the whole program.
    from .app import run

    run()
