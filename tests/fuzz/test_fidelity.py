"""Types of all shapes with values of all kinds: what is accepted comes back as it is."""

import dataclasses
import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any, Generic, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, RootModel, SecretStr

from duramen import JsonSerializer
from duramen._values.serializer import round_trip
from duramen.errors import DeserializationError, SerializationError
from tests.fuzz.effort import effort
from tests.values.kinds import Color, Level, Ok, Pair, Real, Shade, Stamp, Text, Whole

serializer = JsonSerializer()
A = TypeVar("A")
B = TypeVar("B")


class Both(BaseModel, Generic[A, B]):
    model_config = ConfigDict(extra="allow")

    one: A
    other: B
    hidden: A | None = Field(default=None, exclude=True)
    _private: A | None = PrivateAttr(default=None)


class More(Both[A, B], Generic[A, B]):
    more: int = 0


@dataclasses.dataclass
class Two(Generic[A, B]):
    one: A
    other: B


def shape(value: Any) -> Any:
    """A value as nested tuples that are equal if and only if the values are the same, types and all."""
    kind = type(value)
    if isinstance(value, BaseModel):
        # An unparametrised generic model stands for each of its kinds.
        kind = value.__pydantic_generic_metadata__["origin"] or kind
        inside = (vars(value), value.__pydantic_extra__ or {}, value.__pydantic_private__ or {})
        return kind, *(sorted((name, shape(each)) for name, each in part.items()) for part in inside)
    if dataclasses.is_dataclass(value):
        return kind, [(name, shape(each)) for name, each in vars(value).items()]
    if isinstance(value, dict):
        return kind, [(shape(key), shape(each)) for key, each in value.items()]
    if isinstance(value, set | frozenset):
        return kind, sorted((shape(each) for each in value), key=repr)
    if isinstance(value, list | tuple):
        return kind, [shape(each) for each in value]
    if isinstance(value, datetime | time):
        named = isinstance(value.tzinfo, ZoneInfo) and value.tzinfo.key != "UTC"
        return kind, value.replace(tzinfo=None).isoformat(), value.utcoffset(), value.fold, named
    if isinstance(value, Enum):
        return kind, value.name
    if isinstance(value, float):
        return kind, value.hex()
    if isinstance(value, SecretStr):
        return kind, value.get_secret_value()
    return kind, str(value)


clean = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=5)
zones = st.sampled_from([None, UTC, timezone(timedelta(hours=-3)), ZoneInfo("UTC"), ZoneInfo("Asia/Tokyo")])

# For each type, values that a type checker takes for it.
SCALARS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (type(None), st.none()),
    (bool, st.booleans()),
    (
        int,
        st.integers()
        | st.booleans()
        | st.builds(Whole, st.integers())
        | st.just(Level.HIGH)
        | st.builds(pow, st.just(10), st.just(5000)),
    ),
    (float, st.floats() | st.builds(Real, st.floats())),
    (
        str,
        clean
        | st.builds(Text, clean)
        | st.just(Shade.DARK)
        | st.sampled_from(["1", "1.5", "2026-01-01", "null"]),
    ),
    (bytes, st.binary(max_size=4)),
    (Decimal, st.decimals()),
    (date, st.dates() | st.datetimes()),
    (
        datetime,
        st.datetimes(timezones=zones, allow_imaginary=False)
        | st.builds(Stamp, st.just(2026), st.just(1), st.just(1)),
    ),
    (time, st.times(timezones=st.sampled_from([None, UTC]))),
    (timedelta, st.timedeltas()),
    (UUID, st.uuids()),
    (Color, st.just(Color.RED)),
    (Shade, st.just(Shade.DARK)),
    (Level, st.just(Level.HIGH)),
    (Pair, st.builds(Pair, st.integers(), clean)),
    (SecretStr, st.builds(SecretStr, clean)),
    (Ok, st.builds(Ok, text=clean)),
    (
        Any,
        st.integers()
        | clean
        | st.floats()
        | st.tuples(st.integers())
        | st.dictionaries(st.integers() | clean, st.none()),
    ),
]
KEYS = [pair for pair in SCALARS if pair[0] in (bool, int, float, str, date, UUID, Color, Level, Pair)]

Pairing = tuple[Any, st.SearchStrategy[Any]]


def grown(inner: st.SearchStrategy[Pairing]) -> st.SearchStrategy[Pairing]:
    def arrays(pair: Pairing) -> Pairing:
        return list[pair[0]], st.lists(pair[1], max_size=3)

    def tables(key: Pairing, pair: Pairing) -> Pairing:
        return dict[key[0], pair[0]], st.dictionaries(key[1], pair[1], max_size=3)

    def sets(key: Pairing) -> Pairing:
        return set[key[0]], st.sets(key[1], max_size=3)

    def unions(one: Pairing, other: Pairing) -> Pairing:
        return one[0] | other[0] if Any not in (one[0], other[0]) else Any, one[1] | other[1]

    def tuples(one: Pairing, other: Pairing) -> Pairing:
        return tuple[one[0], other[0]], st.tuples(one[1], other[1])

    def models(one: Pairing, other: Pairing) -> Pairing:
        made = Both[one[0], other[0]]
        return made, st.builds(
            _model, st.just(made), one[1], other[1], st.none() | one[1], st.none() | one[1]
        )

    def bases(one: Pairing, other: Pairing) -> Pairing:
        wide, narrow = Both[one[0], other[0]], More[one[0], other[0]]
        return wide, st.builds(
            _model, st.sampled_from([wide, narrow]), one[1], other[1], st.none(), st.none()
        )

    def classes(one: Pairing, other: Pairing) -> Pairing:
        return Two[one[0], other[0]], st.builds(Two, one[1], other[1])

    def roots(one: Pairing) -> Pairing:
        made = RootModel[one[0]]
        return made, st.builds(lambda value: made.model_construct(root=value), one[1])

    keys = st.sampled_from(KEYS)
    return st.one_of(
        *(st.builds(make, inner) for make in (arrays, roots)),
        st.builds(sets, keys),
        st.builds(tables, keys, inner),
        *(st.builds(make, inner, inner) for make in (unions, tuples, models, bases, classes)),
    )


def _model(cls: Any, one: Any, other: Any, hidden: Any, private: Any) -> Any:
    made = cls.model_construct(one=one, other=other, hidden=hidden)
    made._private = private
    return made


cases = st.recursive(st.sampled_from(SCALARS), grown, max_leaves=5).flatmap(
    lambda pair: st.tuples(st.just(pair[0]), pair[1])
)


@effort(500)
@given(case=cases)
def test_what_is_accepted_comes_back_as_it_is(case: tuple[Any, Any]) -> None:
    annotation, value = case
    try:
        data, seen = round_trip(serializer, value, annotation)
    except SerializationError as error:
        path = error.path
        assert path.startswith("$")
        return
    assert shape(seen) == shape(value)
    for read in (serializer.reader(annotation), lambda data: serializer.loads(data, annotation)):
        assert shape(read(data)) == shape(value)
    assert shape(serializer.loads(serializer.dumps(seen, annotation), annotation)) == shape(value)


@effort(200)
@given(case=cases, other=cases)
@example(case=(float, math.nan), other=(list[Decimal], [0]))
def test_what_is_of_another_type_becomes_one_value_for_all_time(case: Any, other: Any) -> None:
    annotation, value = case[0], other[1]
    try:
        data, seen = round_trip(serializer, value, annotation)
    except (SerializationError, DeserializationError):
        return
    assert shape(serializer.loads(data, annotation)) == shape(seen)
    again, seen_again = round_trip(serializer, seen, annotation)
    assert shape(seen_again) == shape(seen)
    assert shape(serializer.loads(again, annotation)) == shape(seen)
