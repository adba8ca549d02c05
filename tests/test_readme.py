"""The README's example is the one that is run."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples/hello.py"


def test_readme_shows_the_example_file() -> None:
    shown = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert EXAMPLE.read_text() in shown


def test_example_prints_what_the_readme_says(tmp_path: Path) -> None:
    for _ in range(2):  # the second time the run exists already: its result is read, nothing is done again
        ran = subprocess.run(
            [sys.executable, "-W", "error", EXAMPLE],
            cwd=tmp_path,
            capture_output=True,
            check=False,
            timeout=60,
            text=True,
        )
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "Hello, world!\n", "")
