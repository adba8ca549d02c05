"""The serializer: what comes from the store, and what comes from users."""

import dataclasses
import enum
import math
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic_core import from_json

from duramen import CodecSerializer, JsonSerializer
from duramen._values.payloads import dump_failure, load_decision, load_reason, step_failure
from duramen._values.serializer import dump_error, load_error, round_trip
from duramen.errors import DeserializationError, SerializationError, StepFailed
from tests.fuzz.effort import effort

serializer = JsonSerializer()


class Size(enum.Enum):
    SMALL = "S"


class Parcel(BaseModel):
    name: str
    price: Decimal = Decimal(0)
    parts: "list[Parcel]" = []


@dataclasses.dataclass
class Point:
    x: float
    y: float | None = None


class Pair(NamedTuple):
    one: int
    other: str


TYPES: list[Any] = [
    *(None, int, float, str, bool, bytes, datetime, date, time, timedelta, Decimal, UUID),
    *(Size, Parcel, Point, Pair, list[int], dict[str, Parcel], tuple[int, str], set[int]),
    *(int | str, Parcel | None),
]

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(alphabet=st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=15,
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(alphabet=st.characters()) | st.binary()
    | st.datetimes() | st.timedeltas() | st.decimals() | st.uuids() | st.complex_numbers()
    | st.builds(Point, st.floats()) | st.builds(Parcel, name=st.text(max_size=3)) | st.builds(object)
    | st.sampled_from([Size.SMALL, Size, Parcel, print, ...]),
    lambda inner: st.lists(inner, max_size=3)
    | st.tuples(inner, inner)
    | st.dictionaries(st.text(max_size=3) | st.integers() | st.none(), inner, max_size=3)
    | st.builds(Point, inner, inner),
    max_leaves=10,
)  # fmt: skip


@effort(300)
@given(
    data=st.binary() | st.text().map(str.encode) | json_values.map(serializer.dumps),
    type=st.sampled_from(TYPES),
)
@example(data=b"[" * 100_000, type=None)
@example(data=b"1" * 5000, type=int)
@example(data=b"NaN", type=float)
@example(data=b'"9999999999-01-01"', type=datetime)
def test_any_bytes_are_read_or_refused(data: bytes, type: Any) -> None:  # noqa: A002 - as the serializer has it
    try:
        value = serializer.loads(data, type)
    except DeserializationError as error:
        path = error.path
        assert path.startswith("$")
    else:
        # What was read can be written, and then is read as the same.
        again = serializer.loads(serializer.dumps(value, type), type)
        assert again == value


@effort(200)
@given(value=json_values)
def test_json_survives(value: Any) -> None:
    data, seen = round_trip(serializer, value)
    assert serializer.loads(data) == seen == value
    assert from_json(data) == value


@effort(400)
@given(value=anything, type=st.sampled_from([None, *TYPES]))
@example(value=math.nan, type=None)
@example(value="\ud800", type=str)
@example(value=Decimal("sNaN"), type=None)
@example(value=Decimal("sNaN"), type=float)
@example(value={"a": {"b": [object()]}}, type=None)
def test_any_value_is_written_or_refused_and_reads_as_it_was_first_seen(value: Any, type: Any) -> None:  # noqa: A002
    try:
        data, seen = round_trip(serializer, value, type)
    except (SerializationError, DeserializationError) as error:
        path = error.path
        assert path.startswith("$")
    else:
        assert serializer.loads(data, type) == seen


@effort(200)
@given(data=st.binary() | json_values.map(serializer.dumps))
@example(data=b'{"type":"builtins.ValueError","message":"m","args":[[]]}')
@example(data=b'{"type":"builtins.SystemExit","message":"m","args":[1]}')
@example(data=b'{"type":"builtins.UnicodeDecodeError","message":"m","args":[1]}')
@example(data=b'{"type":"x","message":"m","attempts":"many"}')
@example(data=b'{"type":"x","message":"m","attempts":1e400}')
def test_payloads_that_are_not_a_users_are_read_or_refused(data: bytes) -> None:
    for read in (
        load_error,
        lambda data: load_decision(serializer, data),
        lambda data: step_failure(serializer, "a", data),
    ):
        try:
            read(data)
        except DeserializationError:
            pass
    assert isinstance(load_reason(serializer, data), str)


names = st.sampled_from(
    [ValueError, KeyError, OSError, SystemExit, UnicodeError, StopIteration, TimeoutError]
)


@effort(200)
@given(cls=names, args=st.lists(anything, max_size=3), cause=anything, note=st.text(alphabet=st.characters()))
def test_any_exception_is_recorded(cls: type[BaseException], args: list[Any], cause: Any, note: str) -> None:
    error = cls(*args)
    error.__cause__ = RuntimeError(cause)
    error.add_note(note)
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - SystemExit is one of them
        data = dump_error(caught)
        failure = dump_failure(serializer, caught, attempts=2)
    assert load_error(data).type_name == f"builtins.{type(error).__name__}"
    again = step_failure(serializer, "a", failure)
    assert isinstance(again, StepFailed)
    assert again.attempts == 2


class Shift:
    """A codec that fails on what it did not write."""

    def encode(self, data: bytes) -> bytes:
        return b"S" + data[::-1]

    def decode(self, data: bytes) -> bytes:
        if data[:1] != b"S":
            raise ValueError("not mine")
        return data[:0:-1]


@effort(100)
@given(data=st.binary(), value=json_values)
def test_codecs_come_undone_or_refuse(data: bytes, value: Any) -> None:
    coded = CodecSerializer(serializer, Shift(), Shift())
    assert coded.loads(coded.dumps(value)) == value
    try:
        coded.loads(data)
    except DeserializationError:
        pass
