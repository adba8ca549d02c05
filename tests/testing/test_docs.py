"""The examples of docs/testing.md are tests, and they pass."""

import re
import subprocess
import sys
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs/testing.md"


def test_the_examples_pass(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    for block in blocks:
        name = re.match(r"# (\w+\.py)\n", block)
        assert name, f"the example does not begin with the name of its file:\n{block}"
        (tmp_path / name[1]).write_text(block)
    tests = sorted(path.name for path in tmp_path.glob("test_*.py"))
    assert len(tests) == len(blocks) - 2  # all but orders.py and conftest.py
    (tmp_path / "pytest.ini").write_text("[pytest]\nstrict = true\nfilterwarnings = error\n")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        timeout=100,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for name in tests:
        assert f"PASSED {name}::" in ran.stdout
