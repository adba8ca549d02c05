"""What pyright accepts and rejects here (`make lint`), mypy accepts and rejects too."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILES = sorted(path.name for path in HERE.glob("*.py") if not path.name.startswith("test_"))

_ERROR = re.compile(r"^(?:.*/)?(\w+\.py):(\d+): error: ")
_REJECTED = "# pyright: ignore["
_ACCEPTED_BY_MYPY = "# not mypy"


@pytest.fixture(scope="module")
def complaints() -> dict[str, dict[int, list[str]]]:
    """mypy's errors by file and line."""
    done = subprocess.run(
        [
            sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--no-error-summary",
            "--no-incremental", "--hide-error-context", *(str(HERE / name) for name in FILES),
        ],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(ROOT / "python")},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[str, dict[int, list[str]]] = {name: {} for name in FILES}
    for line in done.stdout.splitlines():
        if match := _ERROR.match(line):
            found[match[1]].setdefault(int(match[2]), []).append(line)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_mypy_rejects_the_lines_that_pyright_rejects(
    name: str, complaints: dict[str, dict[int, list[str]]]
) -> None:
    lines = (HERE / name).read_text().splitlines()
    wrong = {
        number for number, line in enumerate(lines, 1) if _REJECTED in line and _ACCEPTED_BY_MYPY not in line
    }
    assert set(complaints[name]) == wrong, complaints[name]
