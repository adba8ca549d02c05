"""Values make the trip through JSON, and what cannot is refused with its path."""

import dataclasses
import enum
import json
import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypeVar
from uuid import UUID, uuid4

import pydantic.dataclasses
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FilePath,
    FutureDate,
    FutureDatetime,
    ImportString,
    NewPath,
    RootModel,
    computed_field,
    field_serializer,
)
from typing_extensions import TypedDict

from duramen._values.adapters import adapter_of
from duramen._values.serializer import (
    CodecSerializer,
    JsonSerializer,
    Serializer,
    check_type,
    message_type,
    round_trip,
)
from duramen.errors import (
    DeserializationError,
    InvalidArgument,
    PayloadTooLarge,
    SerializationError,
    WorkflowDefinitionError,
)

serial = JsonSerializer()


class Color(enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Item(BaseModel):
    name: str
    price: float = 1.0
    note: str | None = None


class Order(BaseModel):
    items: list[Item]
    total: Decimal = Decimal(0)


class Aliased(BaseModel):
    model_config = ConfigDict(extra="forbid")

    plain: int = Field(alias="alias")
    split: int = Field(validation_alias="in", serialization_alias="out")

    @computed_field
    def double(self) -> int:
        return self.plain * 2


class Based(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    data: bytes


@dataclass
class Point:
    x: float
    y: float = 0.0
    raw: bytes = b""


@pydantic.dataclasses.dataclass
class Checked:
    x: int


class Movie(TypedDict):
    title: str
    raw: bytes


class Pair(NamedTuple):
    left: int
    right: str


Id = NewType("Id", int)
T = TypeVar("T")
UUID_1 = UUID(int=1)
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)


def numbers(cases: list[Any]) -> list[str]:
    return [f"case {number}" for number in range(len(cases))]


TYPED: list[tuple[Any, Any]] = [
    (int, 2**80),
    (str, "a\x00b\u2028 é 🪵"),
    (bool, True),
    (float, 1e308),
    (float, -0.0),
    (type(None), None),
    (bytes, b"\xff\x00\xfe"),
    (datetime, NOW),
    (date, NOW.date()),
    (timedelta, timedelta(days=3, microseconds=5)),
    (UUID, UUID_1),
    (Decimal, Decimal("1.10")),
    (Color, Color.RED),
    (Number, Number.ONE),
    (Literal["a", 2], 2),
    (Item, Item(name="x", note=None)),
    (Order, Order(items=[Item(name="x")], total=Decimal("9.90"))),
    (Aliased, Aliased.model_validate({"alias": 1, "in": 2})),
    (Based, Based(data=b"\xff")),
    (Point, Point(1.5, raw=b"\xff\xfe")),
    (Checked, Checked(3)),
    (Movie, {"title": "t", "raw": b"\xff"}),
    (Pair, Pair(1, "a")),
    (Id, 5),
    (RootModel[list[int]], RootModel[list[int]]([1])),
    (list[Point], [Point(1.0), Point(2.0, 3.0, b"\xff")]),
    (dict[str, set[int]], {"a": {1, 2}}),
    (dict[int, UUID], {1: UUID_1}),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2, 3)),
    (frozenset[str], frozenset("ab")),
    (deque[int], deque([1, 2])),
    (int | None, None),
    (int | str, "1"),
    (Item | Point, Point(2.0)),
    (Annotated[int, Field(gt=0)], 3),
    (list[Any], [1, "a", None, {"b": [True]}]),
    (dict[str, Any], {"a": None}),
]


@pytest.mark.parametrize(("annotation", "value"), TYPED, ids=numbers(TYPED))
def test_typed_values_come_back_as_themselves(annotation: Any, value: Any) -> None:
    check_type(annotation, "here")
    data = serial.dumps(value, annotation)
    json.loads(data, parse_constant=pytest.fail)
    again = serial.loads(data, annotation)
    assert again == value
    assert type(again) is type(value)
    assert round_trip(serial, value, annotation) == (data, value)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@pytest.mark.parametrize("annotation", [None, Any, object])
@given(value=PLAIN)
def test_plain_json_comes_back_equal_without_a_type(annotation: Any, value: Any) -> None:
    data = serial.dumps(value, annotation)
    assert serial.loads(data, annotation) == value == json.loads(data)
    assert round_trip(serial, value, annotation) == (data, value)


@given(value=PLAIN)
def test_a_second_trip_changes_nothing(value: Any) -> None:
    data = serial.dumps(value)
    assert serial.dumps(serial.loads(data)) == data


@pytest.mark.parametrize(
    "value",
    [
        Item(name="x"),
        Point(1.0),
        Color.RED,
        UUID_1,
        NOW,
        timedelta(hours=1),
        Decimal("1.10"),
        b"x",
        (1, 2),
        {1},
    ],
    ids=repr,
)
def test_without_a_type_only_plain_json_is_taken(value: Any) -> None:
    for within, path in ((value, "$"), ({"a": [1, value]}, "$.a[1]")):
        with pytest.raises(SerializationError) as caught:
            serial.dumps(within)
        assert caught.value.path == path
        assert "declare it as" in caught.value.reason
    # A message whose reader is not known goes by its own type.
    own = message_type(value)
    assert same(serial.loads(serial.dumps(value, own), own), value)


def same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other


def test_events_may_use_a_models_aliases_or_its_names() -> None:
    assert serial.loads(b'{"alias":1,"in":2}', Aliased) == serial.loads(b'{"plain":1,"split":2}', Aliased)


# -- NaN and infinities


class Strange(float):
    pass


class Uses(BaseModel):
    """Writes a NaN as something else."""

    x: float

    @field_serializer("x")
    def write(self, x: float) -> float | None:
        return x if math.isfinite(x) else -1.0


class AnyField(BaseModel):
    x: Any


class Hides(BaseModel):
    x: float = Field(default=math.nan, exclude=True)
    y: None = None


NAN, INF = math.nan, math.inf
NON_FINITE: list[tuple[Any, Any, str]] = [
    (None, NAN, "$"),
    (None, [1, {"a": [INF]}], "$[1].a[0]"),
    (None, {"a b": -INF}, '$["a b"]'),
    (None, {"NaN": "Infinity", "b": NAN}, "$.b"),
    (None, Strange("nan"), "$"),
    (None, {NAN: 1}, "$"),
    (None, {"a": {INF: 1}}, "$.a"),
    (None, {"a": {Strange("-inf"): 1}}, "$.a"),
    (None, Decimal("NaN"), "$"),
    (None, Point(NAN), "$.x"),
    (list[Item], [Item(name="x", price=NAN)], "$[0].price"),
    (tuple[None, dict[str, Item]], (None, {"a": Item(name="x", price=INF)}), "$[1].a.price"),
    (Uses, Uses(x=NAN), "$.x"),
    (dict[str, Any], {"a": [NAN]}, "$.a[0]"),
    (AnyField, AnyField(x={"a": NAN}), "$.x.a"),
    (dict[str, AnyField], {"k": AnyField(x=[INF])}, "$.k.x[0]"),
    (list[Decimal], [Decimal("sNaN")], "$[0]"),
    (complex, complex(1, INF), "$"),
    (float, NAN, "$"),
    (float, Strange("inf"), "$"),
    (list[float], [1.0, NAN], "$[1]"),
    (dict[float, int], {NAN: 1}, "$"),
    (Any, {1.0, NAN}, "$["),
    (Item, Item(name="x", price=NAN), "$.price"),
    (Order, Order(items=[Item(name="x"), Item(name="x", price=-INF)]), "$.items[1].price"),
    (dict[str, Item], {"k": Item(name="null", price=NAN)}, "$.k.price"),
    (Point, Point(1.0, INF), "$.y"),
    (list[Point], [Point(1.0, Strange("nan"))], "$[0].y"),
    (Item | None, Item(name="x", price=NAN), "$.price"),
]


@pytest.mark.parametrize(("annotation", "value", "path"), NON_FINITE, ids=numbers(NON_FINITE))
def test_nan_and_infinities_are_refused_wherever_they_are(annotation: Any, value: Any, path: str) -> None:
    for call in (serial.dumps, serial.round_trip):
        with pytest.raises(SerializationError) as caught:
            call(value, annotation)
        assert caught.value.path.startswith(path)
        assert str(caught.value).startswith(path)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (None, "NaN"),
        (None, {"nan": None, "inf": "Infinity", "null": ["-inf", "NaN"]}),
        (None, [None, 1.5, {"a": None}]),
        (Item, Item(name="NaN Infinity nan inf null")),
        (dict[str, float], {"NaN": 1.0, "inf": 2.0}),
        (str, "nan"),
        (list[float | None], [None, 1.0]),
        (Uses, Uses(x=1.0)),
        (Hides, Hides()),
        (tuple[int, None, str], (1, None, "NaN")),
    ],
)
def test_what_only_looks_like_it_passes(annotation: Any, value: Any) -> None:
    serial.loads(serial.dumps(value, annotation), annotation)


@pytest.mark.parametrize("data", [b"NaN", b'{"x":Infinity,"y":0,"raw":""}', b"[-Infinity]"])
@pytest.mark.parametrize("annotation", [None, Any, float, Point, list[float], dict[str, Any]])
def test_foreign_payloads_with_such_constants_are_refused(data: bytes, annotation: Any) -> None:
    with pytest.raises(DeserializationError):
        serial.loads(data, annotation)


# -- other things that are no JSON


class Loud(BaseModel):
    x: int

    @field_serializer("x")
    def write(self, x: int) -> int:
        raise LookupError("no such thing")


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def circle() -> Any:
    value: list[Any] = []
    value.append({"again": value})
    return value


REFUSED: list[tuple[str, Any, Any, str, str]] = [
    ("object", None, {"items": [1, 2, 3, {"price": object()}]}, "$.items[3].price", "a object is not JSON"),
    ("function", None, [print], "$[0]", "is not JSON"),
    ("class", None, {"a": int}, "$.a", "is not JSON"),
    ("range", None, range(3), "$", "is not JSON"),
    ("exception", None, (ValueError("x"),), "$[0]", "is not JSON"),
    ("in a dataclass", None, [Point(object())], "$[0].x", "is not JSON"),
    (
        "in a model",
        Order,
        Order.model_construct(items=[Item.model_construct(name=object())]),
        "$.items[0].name",
        "",
    ),
    ("surrogate", None, {"a": ["ok", "\ud800"]}, "$.a[1]", "lone surrogate"),
    ("surrogate, typed", str, "x\udfff", "$", "lone surrogate (\\udfff at position 1)"),
    ("surrogate as key", None, {"a": {"\ud800": 1}}, '$.a["\\ud800"]', "as a key"),
    ("surrogate in a model", Item, Item.model_construct(name="\ud800"), "$.name", "lone surrogate"),
    ("object as key", None, {"a": {object(): 1}}, "$.a", "as a key"),
    ("circle", None, circle(), "$[0].again", "circular"),
    ("too deep to write", None, deep(300), "$[0][0]", ""),
    ("too deep to read", None, deep(230), "$", "nested too deeply"),
    ("too deep to read, typed", list[Any], deep(230), "$", "nested too deeply"),
    ("serialiser of the user's", Loud, Loud(x=1), "$", "no such thing"),
    ("not of the type", int, "abc", "$", "does not fit its type int"),
    ("not of the type, inside", list[int], [1, "x"], "$[1]", "does not fit"),
    (
        "not what the model says",
        Order,
        {"items": [{"name": 1}]},
        "$.items[0].name",
        "does not fit its type Order",
    ),
    ("bytes that are no text in a model", None, Item.model_construct(name=b"\xff"), "$.name", ""),
]


@pytest.mark.parametrize(
    ("annotation", "value", "path", "reason"), [case[1:] for case in REFUSED], ids=[c[0] for c in REFUSED]
)
def test_what_cannot_be_stored_is_refused_with_its_path(
    annotation: Any, value: Any, path: str, reason: str
) -> None:
    with pytest.raises(SerializationError) as caught:
        serial.dumps(value, annotation)
    assert caught.value.path.startswith(path)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 2000


def test_plain_json_may_be_given_for_a_declared_type() -> None:
    assert serial.round_trip({"name": "x"}, Item)[1] == Item(name="x")
    assert serial.round_trip([1, 2], tuple[int, int])[1] == (1, 2)
    assert serial.round_trip({"k": "2026-01-01"}, dict[str, date])[1] == {"k": date(2026, 1, 1)}
    assert serial.round_trip(["red"], list[Color])[1] == [Color.RED]
    assert serial.round_trip({"1": "x"}, dict[int, str])[1] == {1: "x"}
    assert serial.round_trip(1, float)[1] == 1.0


class Ticket(BaseModel):
    name: str
    number: UUID = Field(default_factory=uuid4)


def test_what_is_recorded_of_it_is_what_the_type_made_of_it() -> None:
    data, seen = serial.round_trip({"name": "x"}, Ticket)
    assert serial.loads(data, Ticket) == seen == serial.loads(data, Ticket)
    assert serial.dumps(seen, Ticket) == data


def test_a_payload_that_reads_as_another_value_each_time_is_refused() -> None:
    for read in (lambda data: serial.loads(data, list[Ticket]), serial.reader(list[Ticket])):
        with pytest.raises(DeserializationError, match="made anew") as caught:
            read(b'[{"name":"x"}]')
        assert caught.value.path == "$[0].number"
        assert read(serial.dumps([Ticket(name="x")], list[Ticket]))[0].name == "x"


def test_depth_and_length_that_fit_pass() -> None:
    assert serial.loads(serial.dumps(deep(200))) == deep(200)
    flat = [{"a": []}] * 1000
    assert serial.loads(serial.dumps(flat)) == flat


@pytest.mark.parametrize(
    ("data", "annotation", "path", "reason"),
    [
        (b"", None, "$", "not JSON"),
        (b"{", None, "$", "not JSON"),
        (b"\xff", None, "$", "not JSON"),
        (b'"\\ud800"', None, "$", "not JSON"),
        (b"", int, "$", ""),
        (b"{", Item, "$", ""),
        (b'"x"', int, "$", "integer"),
        (b'{"items":[{"name":"a"},{"name":5}]}', Order, "$.items[1].name", "string"),
        (b"[1,2]", tuple[int, str], "$[1]", "string"),
        (b'{"alias":1,"in":2,"other":3}', Aliased, "$.other", "Extra"),
        (b'{"name":[],"price":[]}', Item, "$.name", "1 more"),
    ],
)
def test_payloads_of_another_shape_are_refused_with_the_path(
    data: bytes, annotation: Any, path: str, reason: str
) -> None:
    with pytest.raises(DeserializationError) as caught:
        serial.loads(data, annotation)
    assert caught.value.path == path
    assert reason in str(caught.value)


def test_refusals_do_not_quote_the_payload() -> None:
    with pytest.raises(DeserializationError) as caught:
        serial.loads(b'{"name":{"secret":"hunter2"}}', Item)
    assert "hunter2" not in str(caught.value)


# -- limits


@pytest.mark.parametrize("annotation", [None, str, Item])
def test_the_size_limit_is_that_of_the_payload(annotation: Any) -> None:
    small = JsonSerializer(max_bytes=1000)
    make: Callable[[int], Any] = (lambda n: Item(name="x" * n)) if annotation is Item else (lambda n: "x" * n)
    small.dumps(make(900), annotation)
    for call in (small.dumps, small.round_trip):
        with pytest.raises(PayloadTooLarge, match="the limit is 1,000"):
            call(make(1000), annotation)
    assert JsonSerializer(max_bytes=None).dumps(make(5_000_000), annotation)
    with pytest.raises(PayloadTooLarge, match="2,097,152"):
        serial.dumps(make(2_097_152), annotation)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_must_be_positive(limit: int) -> None:
    with pytest.raises(InvalidArgument, match="max_bytes"):
        JsonSerializer(limit)


# -- annotations


class Unknown:
    pass


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (Unknown, "Unknown cannot be stored as JSON"),
        (list[Unknown], "cannot be stored as JSON"),
        (Callable[[], int], "callable"),
        (dict[str, Callable[..., Any]], "callable"),
        (Iterable[int], "read lazily"),
        ("NoSuchName", "cannot be stored"),
        (3, "cannot be stored"),
        (FutureDate, "read by the clock"),
        (dict[str, FutureDatetime | None], "read by the clock"),
        (list[FilePath], "read by the files"),
        (NewPath, "read by the files"),
        (ImportString[Any], "read by the names of modules"),
    ],
    ids=repr,
)
def test_annotations_that_cannot_be_stored_are_refused_when_defined(annotation: Any, reason: str) -> None:
    with pytest.raises(WorkflowDefinitionError, match=reason) as caught:
        check_type(annotation, "input of workflow 'w'")
    assert str(caught.value).startswith("input of workflow 'w': ")
    assert "\n\n" not in str(caught.value)


def test_the_order_of_a_union_is_kept_although_unions_compare_equal() -> None:
    first = serial.loads(b'"2026-01-01"', date | datetime)
    second = serial.loads(b'"2026-01-01"', datetime | date)
    assert (date | datetime) == (datetime | date)
    assert (first, second) == (
        serial.loads(b'"2026-01-01"', date | datetime),
        serial.loads(b'"2026-01-01"', datetime | date),
    )


def test_annotations_made_anew_each_time_cost_no_new_adapter() -> None:
    adapters = set()
    for _ in range(50):
        adapters.add(id(adapter_of(dict[str, list[Annotated[int, "hashable"]]])))
    assert len(adapters) == 1


def test_annotations_that_cannot_be_hashed_work() -> None:
    annotation = Annotated[int, {"not": "hashable"}]
    check_type(annotation, "here")
    assert serial.loads(serial.dumps(1, annotation), annotation) == 1


def test_models_whose_building_is_deferred_work() -> None:
    class Later(BaseModel):
        model_config = ConfigDict(defer_build=True)

        x: int

    assert serial.round_trip(Later(x=1), Later) == (b'{"x":1}', Later(x=1))


# -- codecs


class Reverse:
    def encode(self, data: bytes) -> bytes:
        return data[::-1]

    def decode(self, data: bytes) -> bytes:
        return data[::-1]


class Half:
    """Stands for a compression: half as long."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}

    def encode(self, data: bytes) -> bytes:
        self.kept[data[::2]] = data
        return data[::2]

    def decode(self, data: bytes) -> bytes:
        return self.kept[data]


def test_codecs_are_undone_in_reverse() -> None:
    packed: Serializer = CodecSerializer(JsonSerializer(), Half(), Reverse())
    data = packed.dumps({"a": [1, 2]})
    assert data == b'{"a":[1,2]}'[::2][::-1]
    assert packed.loads(data) == {"a": [1, 2]}
    assert round_trip(packed, Item(name="x"), Item)[1] == Item(name="x")


def test_the_limit_is_that_of_what_is_stored() -> None:
    packed = CodecSerializer(JsonSerializer(max_bytes=10), Half(), max_bytes=1000)
    packed.dumps("x" * 1900)
    with pytest.raises(PayloadTooLarge):
        packed.dumps("x" * 2100)


def test_codecs_that_fail_are_named() -> None:
    packed = CodecSerializer(JsonSerializer(), Half())
    with pytest.raises(DeserializationError, match=r"Half\.decode failed: KeyError"):
        packed.loads(b"other")
    packed = CodecSerializer(JsonSerializer(), object())
    with pytest.raises(SerializationError, match=r"object\.encode failed"):
        packed.dumps(1)


def test_any_serializer_can_make_the_round_trip() -> None:
    class Text:
        def dumps(self, value: Any, type: Any = None) -> bytes:  # noqa: A002
            return repr(value).encode()

        def loads(self, data: bytes, type: Any = None) -> Any:  # noqa: A002
            return data.decode()

    assert round_trip(Text(), 1, int) == (b"1", "1")


def test_a_dataclass_made_by_pydantic_keeps_its_own_configuration() -> None:
    assert dataclasses.is_dataclass(Checked)
    assert serial.dumps(Checked(1), Checked) == b'{"x":1}'
