"""Checks the wheel in a folder: its size, its contents, and the README's example in clean environments.

    try_wheel.py dist

Takes each of Python 3.11, 3.12 and 3.13 that is on this machine: on PATH, or among pyenv's versions.
"""

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from shutil import which

LIMIT = 8 * 1024 * 1024
VERSIONS = ("3.11", "3.12", "3.13")
NEEDED = (
    r"duramen/py\.typed",
    r"duramen/_native\.pyi",
    r"duramen/_native\..*(so|pyd)",
    r".*/licenses/LICENSE",
)
ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples/hello.py"
EXPECTED = "Hello, world!\n"


def run(*command: str | Path, cwd: Path | None = None) -> str:
    ran = subprocess.run(command, cwd=cwd, capture_output=True, check=False, text=True)
    if ran.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with {ran.returncode}\n{ran.stdout}{ran.stderr}")
    return ran.stdout


def check_contents(wheel: Path) -> None:
    size = wheel.stat().st_size
    print(f"{wheel.name}: {size / 1024 / 1024:.2f} MiB (at most {LIMIT / 1024 / 1024:.0f})")
    if size > LIMIT:
        sys.exit("The wheel is too large.")
    names = zipfile.ZipFile(wheel).namelist()
    migrations = [re.escape(f"duramen/{path.relative_to(ROOT)}") for path in ROOT.glob("migrations/*/*.sql")]
    for pattern in (*NEEDED, *migrations):
        if not any(re.fullmatch(pattern, name) for name in names):
            sys.exit(f"The wheel lacks {pattern}; it has {names}")


def interpreters() -> dict[str, Path]:
    """The interpreters found, by version. A shim that refuses to start is passed over."""
    candidates = [Path(found) for version in VERSIONS if (found := which(f"python{version}"))]
    candidates += [Path(found) for found in (which("python3"), which("python")) if found]
    if which("pyenv"):
        candidates += sorted(Path(run("pyenv", "root").strip()).glob("versions/*/bin/python3"))
    found: dict[str, Path] = {}
    for candidate in [*candidates, Path(sys.executable)]:
        ask = [candidate, "-c", "import ensurepip, venv, sys; print('%d.%d' % sys.version_info[:2])"]
        answer = subprocess.run(ask, capture_output=True, check=False, text=True)
        if answer.returncode == 0 and answer.stdout.strip() in VERSIONS:
            found.setdefault(answer.stdout.strip(), candidate)
    return dict(sorted(found.items()))


def try_in(python: Path, wheel: Path) -> str:
    with tempfile.TemporaryDirectory(prefix="duramen-wheel-") as folder:
        home = Path(folder)
        run(python, "-m", "venv", home / "venv")
        clean = home / "venv/bin/python"
        run(clean, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel)
        version = run(
            clean, "-c", "import duramen, platform; print(platform.python_version(), duramen.__version__)"
        )
        # -I: neither this folder nor the environment may help.
        printed = run(clean, "-I", "-W", "error", EXAMPLE, cwd=home)
        if printed != EXPECTED:
            sys.exit(f"{EXAMPLE.name} printed {printed!r} under {version}")
        return version.strip()


def main() -> None:
    (wheel,) = (path.resolve() for path in Path(sys.argv[1]).glob("*.whl"))
    check_contents(wheel)
    found = interpreters()
    for version in VERSIONS:
        if version in found:
            print(
                f"Python {version}: duramen installed, {EXAMPLE.name} ran ({try_in(found[version], wheel)})"
            )
        else:
            print(f"Python {version}: not on this machine")


if __name__ == "__main__":
    main()
