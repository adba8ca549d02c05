"""Makes frozen histories: `python tests/histories/make.py [--again] [NAME …]`.

A frozen history is what some version wrote, and every later one must replay. So histories are added, and
hardly ever made again: without --again a file that is there is left alone. --again is for what no release
has written yet.
"""

import argparse
import asyncio
import importlib
import json
import logging
import sys
import sysconfig
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from duramen import Runtime  # noqa: E402 - the folder of the tests comes first
from tests.histories.case import CASES, Case  # noqa: E402

for module in sorted((HERE / "code").glob("*.py")):
    importlib.import_module(f"tests.histories.code.{module.stem}")

from tests.histories.code.endings import Made  # noqa: E402


async def make(case: Case) -> dict[str, Any]:
    """Play a case and export its run."""
    options = {} if case.serializer is None else {"serializer": case.serializer}
    async with Runtime("memory://", workflows=[case.workflow, *case.others], **options) as runtime:
        try:
            await case.play(runtime, case.name)
        except Made as made:
            return made.history
        return dict(await runtime.export(case.name))


def anywhere(text: str) -> str:
    """The text without the folders of this machine, which tracebacks name."""
    folders = {
        str(ROOT): "",
        sysconfig.get_path("stdlib"): "python",
        sysconfig.get_path("purelib"): "packages",
    }
    for folder, instead in sorted(folders.items(), key=lambda each: -len(each[0])):
        text = text.replace(f"{folder}/", f"{instead}/".lstrip("/"))
    return text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *CASES])
    parser.add_argument("--again", action="store_true", help="make those that are there, too")
    arguments = parser.parse_args()
    logging.disable()
    for name in arguments.names or CASES:
        file = HERE / f"{name}.json"
        if file.exists() and not arguments.again:
            continue
        history = asyncio.run(make(CASES[name]))
        file.write_text(anywhere(json.dumps(history, indent=1, ensure_ascii=False)) + "\n")
        print(file.relative_to(ROOT), history["run"]["status"], len(history["journal"]), "entries")


if __name__ == "__main__":
    main()
