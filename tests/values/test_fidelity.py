"""What comes back is what was given, in value and type, or it was refused before anything was written."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from duramen._values.fidelity import find_difference
from duramen._values.serializer import CodecSerializer, JsonSerializer, round_trip
from duramen.errors import SerializationError
from tests.values.kinds import FAITHFUL, LIES

serial = JsonSerializer()


def labels(cases: list[Any]) -> list[str]:
    return [f"{number}: {str(case[0])[:30]}" for number, case in enumerate(cases)]


@pytest.mark.parametrize(("annotation", "value"), FAITHFUL, ids=labels(FAITHFUL))
def test_it_comes_back_as_it_is(annotation: Any, value: Any) -> None:
    data, seen = round_trip(serial, value, annotation)
    assert type(seen) is type(value)
    assert seen == value
    assert find_difference(value, seen) is None
    assert find_difference(seen, serial.round_trip(seen, annotation)[1]) is None
    for read in (serial.reader(annotation), lambda data: serial.loads(data, annotation)):
        assert find_difference(value, read(data)) is None


@pytest.mark.parametrize(("annotation", "value", "path", "advice"), LIES, ids=labels(LIES))
def test_what_would_come_back_as_something_else_is_refused(
    annotation: Any, value: Any, path: str, advice: str
) -> None:
    for give in (serial.dumps, serial.round_trip, CodecSerializer(JsonSerializer()).dumps):
        with pytest.raises(SerializationError) as caught:
            give(value, annotation)
        assert caught.value.path == path
        assert advice in caught.value.reason
        assert len(str(caught.value)) < 1000


READER = """
import json, sys
from duramen._values.fidelity import find_difference
from duramen._values.serializer import JsonSerializer
from tests.values.kinds import FAITHFUL

serial = JsonSerializer()
for (annotation, value), data in zip(FAITHFUL, json.load(sys.stdin), strict=True):
    seen = serial.loads(data.encode(), annotation)
    assert type(seen) is type(value) and seen == value, (annotation, value, seen)
    assert find_difference(value, serial.round_trip(seen, annotation)[1]) is None, (annotation, value)
print("read", len(FAITHFUL))
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["0", "1", "4711"])
def test_it_comes_back_as_it_is_in_another_process_with_another_hash_seed(seed: str) -> None:
    payloads = [serial.dumps(value, annotation).decode() for annotation, value in FAITHFUL]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{root / 'python'}{os.pathsep}{root}"}
    done = subprocess.run(
        [sys.executable, "-c", READER],
        input=json.dumps(payloads),
        text=True,
        capture_output=True,
        timeout=60,
        env=environment,
        check=False,
    )
    assert done.stdout == f"read {len(FAITHFUL)}\n", done.stderr
