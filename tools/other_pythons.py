"""Runs a fast part of the tests on each other Python of this machine that Duramen supports.

    other_pythons.py [--folder FOLDER]

Each gets an environment in FOLDER (.venv/other): what the tests need, the sources of this checkout, and the
extension module that `make` has built, which is the same for all versions. It is kept until pyproject.toml
changes. Where no other Python is found it says so, and that is no failure. Interpreters are looked for as
try_wheel.py does: on PATH, and among pyenv's versions.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
import tomllib
from importlib.metadata import distribution
from pathlib import Path

from try_wheel import interpreters

ROOT = Path(__file__).resolve().parents[1]
# What depends on the interpreter: its event loop and tasks, its threads, its signatures and annotations.
FAST = ("tests/loop", "tests/driving", "tests/handlers", "tests/values")
LIMIT = 240
"""Seconds for the tests of one version."""


def prepared(python: Path, folder: Path) -> Path:
    """An interpreter with what the tests need."""
    inside = folder / "bin/python"
    stamp = folder / "made"
    wanted = (ROOT / "pyproject.toml").stat().st_mtime
    if not stamp.exists() or stamp.stat().st_mtime < wanted:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([python, "-m", "venv", folder], check=True)
        pip = [inside, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        needed = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
        subprocess.run([*pip, "--upgrade", "pip>=25.1"], check=True)
        subprocess.run([*pip, "--group", "test", *needed], check=True, cwd=ROOT)
        stamp.touch()
    link(inside)
    return inside


def link(inside: Path) -> None:
    """Let it find this checkout, and the version that the package asks its metadata for."""
    ask = [inside, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(ask, capture_output=True, check=True, text=True).stdout.strip())
    ours = distribution("duramen")
    (packages / "duramen.pth").write_text(f"{ROOT / 'python'}\n", "utf-8")
    about = packages / "duramen.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: duramen\nVersion: {ours.version}\n", "utf-8"
    )


def passes(version: str, inside: Path) -> bool:
    command = [inside, "-m", "pytest", "--quiet", "--no-header", "-p", "no:cacheprovider", *FAST]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    begun = time.monotonic()
    try:
        code = subprocess.run(command, cwd=ROOT, env=environment, check=False, timeout=LIMIT).returncode
    except subprocess.TimeoutExpired:
        code = -1
        print(f"Python {version}: not done after {LIMIT} s", flush=True)
    print(
        f"Python {version}: {'passed' if code == 0 else 'FAILED'} after {time.monotonic() - begun:.0f} s",
        flush=True,
    )
    return code == 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description="A fast part of the tests on each other Python of this machine."
    )
    parser.add_argument("--folder", type=Path, default=ROOT / ".venv/other")
    folder: Path = parser.parse_args().folder
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    others = {version: python for version, python in interpreters().items() if version != own}
    if not others:
        print(f"No other Python than {own} is on this machine.")
        return
    results = [passes(each, prepared(python, folder / f"py{each}")) for each, python in others.items()]
    sys.exit(0 if all(results) else 1)


main()
