"""The Python tests: `python tools/python_tests.py [PYTEST ARGUMENT …]`.

All of them run in two processes side by side, each with a Postgres server of its own: most tests wait for
leases, timers and other processes, and one process leaves half of a small machine idle. With arguments
there is one.
"""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# What takes as long as the rest does.
FIRST = (
    *("architecture", "benches", "chaos", "cli", "crashes", "demo", "driving", "errors"),
    *("faults", "fuzz", "handlers", "histories", "integrations", "logging", "loop"),
)


def rest() -> list[str]:
    """Every other folder and file of tests, those that are still to come included."""
    found = [path.parent for path in (ROOT / "tests").glob("*/test_*.py")]
    found += (ROOT / "tests").glob("test_*.py")
    return sorted({f"tests/{path.name}" for path in found if path.name not in FIRST})


def command(*arguments: str) -> list[str]:
    server = [sys.executable, str(ROOT / "tools" / "with_postgres.py")]
    return [*server, sys.executable, "-m", "pytest", *arguments]


def main() -> int:
    if sys.argv[1:]:
        return subprocess.run(command(*sys.argv[1:]), cwd=ROOT, check=False).returncode
    with tempfile.TemporaryFile() as said:
        second = subprocess.Popen(command(*rest()), cwd=ROOT, stdout=said, stderr=said)
        try:
            code = subprocess.run(
                command(*(f"tests/{each}" for each in FIRST)), cwd=ROOT, check=False
            ).returncode
            code = second.wait() or code
        except BaseException:
            second.send_signal(signal.SIGINT)
            second.wait()
            raise
        finally:
            said.seek(0)
            sys.stdout.flush()
            sys.stdout.buffer.write(b"\n== the other half\n" + said.read())
            sys.stdout.flush()
    return code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
