"""The package with an extension that plays a newer build: it reads encoding 2, and records values with it."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import duramen

ROOT = Path(__file__).parents[2]


def build_newer() -> Path:
    """Build the newer extension; gives the library.

    In the profile of `cargo test`, whose dependencies it shares. The next build of any kind writes to the
    same file: whoever uses it copies it.
    """
    cargo = shutil.which("cargo")
    if cargo is None:
        raise RuntimeError("the newer build is made with cargo, which is not on the path")
    command = [cargo, "build", "--quiet", "--package", "duramen-python", "--features", "newer-format"]
    locked = ["--locked"] if os.environ.get("CI") else []
    built = subprocess.run(
        [*command, *locked, "--message-format", "json-render-diagnostics"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    for line in built.stdout.splitlines():
        told = json.loads(line)
        if told["reason"] == "compiler-artifact" and told["target"]["name"] == "_native":
            (library,) = (name for name in told["filenames"] if not name.endswith((".d", ".lib", ".pdb")))
            return Path(library)
    raise RuntimeError("cargo built no extension")


def newer_package(folder: Path) -> Path:
    """Make a folder with the package of a newer build, to come first in `PYTHONPATH`."""
    here = Path(duramen.__file__).parent
    package = folder / "duramen"
    package.mkdir(parents=True)
    for path in here.iterdir():
        if path.name == "__pycache__":
            continue
        if path.name.startswith("_native.") and path.suffix != ".pyi":
            shutil.copyfile(build_newer(), package / path.name)
        else:
            (package / path.name).symlink_to(path)
    return folder
