"""Runs a fast part of the tests on each other Python of this machine that Duramen supports.

    other_pythons.py [--folder FOLDER]

Each gets an environment in FOLDER (.venv/other): what the tests need, the sources of this checkout, and the
extension module that `make` has built, which is the same for all versions. It is kept until pyproject.toml
changes. Where no other Python is found, or what the tests need cannot be had for it, it says so, and that is
no failure. Interpreters are looked for as try_wheel.py does: on PATH, and among pyenv's versions.
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
LIMIT = 600
"""Seconds for the tests of all versions; on a quiet machine they take a tenth of it."""


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


def begun(inside: Path, said: Path) -> "subprocess.Popen[bytes]":
    """The tests on one version, in a process that writes to a file what it says."""
    command = [inside, "-m", "pytest", "--quiet", "--no-header", "-p", "no:cacheprovider", "-m", "not slow"]
    command += ["-k", "not postgres"]  # no server knows which Python it is asked by
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with said.open("wb") as out:
        return subprocess.Popen([*command, *FAST], cwd=ROOT, env=environment, stdout=out, stderr=out)


def passed(version: str, tests: "subprocess.Popen[bytes]", said: Path, until: float) -> bool:
    try:
        code = tests.wait(max(0.0, until - time.monotonic()))
        outcome = "FAILED" if code else "passed"
    except subprocess.TimeoutExpired:
        tests.kill()
        code, outcome = tests.wait(), f"FAILED, not done after {LIMIT} s"
    told = said.read_text("utf-8", "replace").strip()
    # Of one that passed the last line is enough: how many they were.
    print(told.rpartition("\n")[2] if code == 0 else told)
    print(f"Python {version}: {outcome}", flush=True)
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
        print(f"Skipped: no other Python than {own} that Duramen supports is on this machine.")
        return
    ready: dict[str, Path] = {}
    for version, python in others.items():
        try:
            ready[version] = prepared(python, folder / f"py{version}")
        except subprocess.CalledProcessError as error:
            print(
                f"Python {version}: skipped, what the tests need cannot be had for it ({error})", flush=True
            )
    until = time.monotonic() + LIMIT
    running = {
        version: (begun(inside, folder / f"py{version}.log"), folder / f"py{version}.log")
        for version, inside in ready.items()
    }
    results = [passed(version, tests, said, until) for version, (tests, said) in running.items()]
    sys.exit(0 if all(results) else 1)


main()
