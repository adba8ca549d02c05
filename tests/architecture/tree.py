"""The files of this repository, as the rules of tests/architecture look at them."""

import re
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@cache
def files() -> tuple[Path, ...]:
    """Every file that is or would be committed, relative to the root."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    paths = (Path(name) for name in sorted(set(listed.stdout.split("\0"))) if name)
    return tuple(path for path in paths if (ROOT / path).is_file())


def under(folder: str, *suffixes: str) -> list[Path]:
    return [path for path in files() if path.is_relative_to(folder) and path.suffix in suffixes]


def read(path: Path | str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


# A string comes first: `//` inside one is no comment. Lifetimes ('a) are why characters are matched exactly.
_RUST_TOKEN = re.compile(
    r'(?P<string>b?r(?P<hashes>#*)".*?"(?P=hashes)|b?"(?:\\.|[^"\\])*"|b?\'(?:\\[^u]|\\u\{[0-9a-f]+\}|[^\'\\])\')'
    r"|(?P<comment>//[^\n]*|/\*.*?\*/)",
    re.DOTALL | re.IGNORECASE,
)


def rust_code(text: str) -> str:
    """Rust source without its comments and with its strings emptied."""
    return _RUST_TOKEN.sub(lambda match: '""' if match["string"] else " ", text)


def rust_strings(text: str) -> list[str]:
    return [match["string"] for match in _RUST_TOKEN.finditer(text) if match["string"]]
