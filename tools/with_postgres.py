"""Runs commands with a Postgres server of their own, whose URL they find in DURAMEN_TEST_POSTGRES_URL.

python tools/with_postgres.py cargo test --workspace
python tools/with_postgres.py cargo test --and python -m pytest        one server for both
"""

import os
import signal
import subprocess
import sys
from itertools import groupby
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.postgres.server import URL_VARIABLE, NoPostgres, server


def run(commands: list[list[str]]) -> int:
    """Run one after another; the status is that of the first that failed, and the others are not run."""
    for command in commands:
        try:
            process = subprocess.Popen(command)
        except OSError as error:
            print(f"with_postgres: {command[0]}: {error.strerror}", file=sys.stderr)
            return 127
        # Ctrl-C reaches the command too, which decides how it ends; the server goes after it.
        while True:
            try:
                status = process.wait()
                break
            except KeyboardInterrupt:
                continue
            except SystemExit:
                process.terminate()
        if status:
            return 128 - status if status < 0 else status
    return 0


def main(arguments: list[str]) -> int:
    commands = [list(part) for is_end, part in groupby(arguments, "--and".__eq__) if not is_end]
    if not commands:
        print(__doc__, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if os.environ.get(URL_VARIABLE):
        return run(commands)
    try:
        with server() as pg:
            os.environ[URL_VARIABLE] = pg.new_database("tests")
            return run(commands)
    except NoPostgres as error:
        print(f"with_postgres: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
