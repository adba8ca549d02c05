"""Types and values of every kind that people put into payloads, for the tests of what comes back."""

import dataclasses
import enum
import re
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import pydantic
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    RootModel,
    SecretBytes,
    SecretStr,
    SerializerFunctionWrapHandler,
    computed_field,
    model_serializer,
)
from typing_extensions import TypeAliasType, TypedDict

T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"


class Shade(enum.StrEnum):
    DARK = "dark"


class Level(enum.IntEnum):
    HIGH = 3


class Access(enum.IntFlag):
    READ = 1
    WRITE = 2


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Real(float):
    pass


class Rows(list[int]):
    pass


class Stamp(datetime):
    pass


class Blob(bytes):
    pass


class Pair(NamedTuple):
    left: int
    right: str


class Twin(Pair):
    """Its instances can have attributes, as those of a `NamedTuple` cannot."""

    @cached_property
    def width(self) -> int:
        return self.left + len(self.right)


class Ok(BaseModel):
    text: str


class Err(BaseModel):
    text: str


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    tricks: int = 0


class Animal(BaseModel):
    name: str


class Bird(Animal):
    wings: int = 2


@dataclass
class Place:
    name: str


@dataclass
class City(Place):
    people: int = 0


class Login(BaseModel):
    user: str
    password: SecretStr


class Excluded(BaseModel):
    shown: int = 0
    hidden: int = Field(default=0, exclude=True)


class Private(BaseModel):
    shown: int = 0
    _hidden: int = PrivateAttr(default=0)

    def hide(self, value: int) -> "Private":
        self._hidden = value
        return self


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")

    seen: int


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")

    seen: int


class Adds(BaseModel):
    model_config = ConfigDict(extra="allow")

    seen: int

    @model_serializer(mode="wrap")
    def write(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {**write(self), "kind": "adds"}


class Opened(BaseModel):
    seen: int
    _at: int = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        self._at = self.seen + 1

    def close(self) -> "Opened":
        del self._at
        return self


class Aliased(BaseModel):
    split: int = Field(validation_alias="in", serialization_alias="out")
    plain: int = Field(default=0, alias="other")


class Rounded(BaseModel):
    value: Annotated[float, PlainSerializer(lambda number: round(number, 1))]


class Seconds(BaseModel):
    model_config = ConfigDict(ser_json_timedelta="float")

    span: timedelta


class Figures(BaseModel):
    @computed_field
    def doubled(self) -> int:
        return self.number * 2

    @computed_field
    @cached_property
    def halved(self) -> float:
        return self.number / 2

    number: int

    @cached_property
    def tripled(self) -> int:
        return self.number * 3


class Box(BaseModel, Generic[T]):
    inside: T


class Tree(BaseModel):
    value: int
    children: "list[Tree]" = []


class Holder(BaseModel):
    anything: Any


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


@dataclass
class Late:
    given: int
    made: int = field(init=False, default=0)


@dataclass(slots=True)
class Slotted:
    left: int
    right: int


@dataclass
class Half(Slotted):
    """Keeps two of its fields in slots and one in a dictionary, which so has room for others."""

    more: int = 0


@dataclass
class Wants:
    kept: int
    passed: dataclasses.InitVar[int]

    def __post_init__(self, passed: int) -> None:
        self.kept += passed


@dataclass(frozen=True, slots=True)
class Spot:
    x: float
    y: float = field(default=0.0, compare=False, repr=False)


Number = TypeAliasType("Number", int | str)
Lower = Annotated[str, AfterValidator(str.lower)]
Pet = Annotated[Cat | Dog, Field(discriminator="kind")]
Numbers = RootModel[list[int]]
NAIVE = datetime.fromisoformat("2026-01-01T00:00:00")
BERLIN = ZoneInfo("Europe/Berlin")
EAST = timezone(timedelta(hours=1))


def set_on(value: Any, **attributes: Any) -> Any:
    for name, attribute in attributes.items():
        setattr(value, name, attribute)
    return value


def set_inside(value: Any, **attributes: Any) -> Any:
    value.__dict__.update(attributes)
    return value


def looked_at(value: Figures) -> Figures:
    assert value.tripled == 6 * value.halved  # which leaves both in the instance's dictionary
    return value


def measured(value: Twin) -> Twin:
    assert value.width
    return value


BIG = 10**5736

FAITHFUL: list[tuple[Any, Any]] = [
    *[
        (int, 10**4000),
        (int, -1),
        (float, -0.0),
        (float, 5e-324),
        (bool, True),
        (complex, 1 - 0j),
        (str, "\x00"),
    ],
    *[(bytes, b"\xff"), (Color, Color.RED), (Shade, Shade.DARK)],
    *[(Level, Level.HIGH), (Access, Access.READ | Access.WRITE), (Literal["a", 1], 1)],
    *[(Decimal, Decimal("-0.00")), (Decimal, Decimal("1E+400")), (Fraction, Fraction(1, 3))],
    *[(UUID, UUID(int=5)), (Path, Path("/a/b")), (re.Pattern, re.compile("a+"))],
    *[(IPv4Address, IPv4Address("10.0.0.1")), (pydantic.HttpUrl, pydantic.HttpUrl("https://a.b/c?d=e"))],
    *[(datetime, NAIVE), (datetime, datetime(2026, 3, 1, 2, 30, tzinfo=UTC))],
    *[(datetime, datetime(1, 1, 1, tzinfo=EAST)), (datetime, datetime(2026, 1, 1, tzinfo=ZoneInfo("UTC")))],
    *[(time, time(1, 2, 3, 4)), (time, time(1, tzinfo=UTC)), (date, date(9999, 12, 31))],
    *[(timedelta, timedelta(days=-1, microseconds=1)), (timedelta, timedelta(days=999_999_999))],
    *[(Twin, Twin(1, "a")), (Twin, measured(Twin(1, "a"))), (list[bytes], [b"", b"x"]), (set[bytes], {b"x"})],
    *[(dict[datetime, int], {datetime(2026, 1, 1, tzinfo=EAST): 1}), (dict[bytes, int], {b"x": 1})],
    *[
        (Opened, Opened(seen=1)),
        (Pair, Pair(1, "a")),
        (tuple[int, ...], (1, 2)),
        (tuple[()], ()),
        (deque[int], deque([1])),
    ],
    *[(set[str], {"a", "b"}), (frozenset[tuple[int, str]], frozenset({(1, "a")})), (set[date], {date.min})],
    *[(OrderedDict[str, int], OrderedDict(b=1, a=2)), (Counter[str], Counter("aab"))],
    *[(defaultdict[str, list[int]], defaultdict(list, a=[1])), (dict[UUID, int], {UUID(int=1): 1})],
    *[
        (dict[int, str], {1: "a", -2: "b"}),
        (dict[Color, int], {Color.RED: 1}),
        (dict[date, int], {date.min: 1}),
    ],
    *[(dict[bool, int], {True: 1, False: 0}), (dict[float, int], {1.0: 1, 0.5: 2})],
    *[(int | str, "1"), (int | str, 1), (Number, "1"), (list[int | str | None], [1, "1", None])],
    *[
        (Ok | Cat, Cat()),
        (Pet, Dog(tricks=1)),
        (list[Pet], [Cat(), Dog()]),
        (bool | int, 1),
        (int | bool, True),
    ],
    *[
        (date | datetime, NAIVE),
        (float | Decimal | str, Decimal("1.5")),
        (str | UUID, UUID(int=1)),
    ],
    *[(Spot, Spot(1)), (dict[str, Any] | Ok, {"text": "x"}), (float | int, 1), (int | float, 1.0)],
    *[(Bird, Bird(name="x")), (City, City("x", 1)), (Tree, Tree(value=1, children=[Tree(value=2)]))],
    *[(Excluded, Excluded(shown=1)), (Private, Private(shown=1)), (Strict, Strict(seen=1))],
    *[
        (Open, Open.model_validate({"seen": 1, "more": {"a": [1]}})),
        (Aliased, Aliased.model_validate({"in": 1})),
    ],
    *[(Rounded, Rounded(value=0.5)), (Seconds, Seconds(span=timedelta(seconds=1.5)))],
    *[(Figures, Figures(number=1)), (Figures, looked_at(Figures(number=1))), (Numbers, Numbers([1, 2]))],
    *[(Box[int], Box[int](inside=1)), (Box[Pet], Box[Pet](inside=Dog())), (Movie, {"year": 1, "title": "x"})],
    *[
        (Movie, {"title": "x"}),
        (Late, Late(1)),
        (Spot, Spot(1.0, 2.0)),
        (Holder, Holder(anything={"a": [1.5]})),
    ],
    *[(Lower, "low"), (Any, {"a": [1, 1.0, True, None, "x"]}), (type(None), None)],
]
"""Values that come back as they are."""

LIES: list[tuple[Any, Any, str, str]] = [
    # Written as something else.
    (SecretStr, SecretStr("x"), "$", "fetch it in the step"),
    (SecretBytes, SecretBytes(b"x"), "$", "fetch it in the step"),
    (Login, Login(user="a", password=SecretStr("x")), "$.password", "fetch it in the step"),
    (list[Login], [Login(user="a", password=SecretStr("x"))], "$[0].password", "fetch it"),
    (pydantic.Secret[int], pydantic.Secret[int](5), "$", "fetch it in the step"),
    (Holder, Holder(anything=SecretStr("x")), "$.anything", "fetch it"),
    (Excluded, Excluded(hidden=1), "$.hidden", "exclude=True"),
    (Private, Private().hide(1), "$._hidden", "private attribute"),
    (Late, set_on(Late(1), made=5), "$.made", "give what it makes of it"),
    (Wants, Wants(1, 2), "$.passed", "does not fit its type Wants"),
    (Place, set_on(Place("x"), more=1), "$.more", "does not come back"),
    (Half, set_on(Half(1, 2), other=1), "$.other", "does not come back"),
    (OrderedDict[str, int], set_on(OrderedDict(a=1), more=1), "$.more", "does not come back"),
    (list[Twin], [set_on(Twin(1, "a"), more=1)], "$[0].more", "does not come back"),
    (Ok, set_inside(Ok(text="x"), more=1), "$.more", "does not come back"),
    (Opened, Opened(seen=1).close(), "$._at", "private attribute"),
    (Adds, Adds(seen=1), "$.kind", "it is missing, and comes back as a str"),
    (Movie, {"title": "x", "more": 1}, "$.more", "does not know that key"),
    (Rounded, Rounded(value=0.25), "$.value", "changed when it is read"),
    (Seconds, Seconds(span=timedelta(days=999_999_999, microseconds=1)), "$.span", ""),
    (Lower, "UP", "$", "changed when it is read"),
    # Read as something else.
    (Err | Ok, Ok(text="x"), "$", "discriminator"),
    (list[Ok | Err], [Ok(text="x"), Err(text="x")], "$[1]", "the JSON of an Err reads as an Ok"),
    (Box[Ok | Err], Box[Ok | Err](inside=Err(text="x")), "$.inside", "discriminator"),
    (Ok | Err | None, Err(text="x"), "$", "discriminator"),
    (RootModel[dict[str, Ok | Err]], RootModel[dict[str, Ok | Err]]({"a": Err(text="x")}), "$.root.a", ""),
    (list[BaseModel], [Ok(text="x")], "$[0]", "declare it as Ok"),
    (Animal | Place, Place("x"), "$", "the JSON of a Place reads as an Animal"),
    (str | UUID, str(UUID(int=1)), "$", "a str comes back as a UUID"),
    (list[str | UUID], [str(UUID(int=1))], "$[0]", "a str comes back as a UUID"),
    (str | date, date(2026, 1, 1), "$", "a date comes back as a str"),
    (Spot, Spot("1.5"), "$.x", "a str comes back as a float"),
    (list[Late], [Late(True), {"given": 1}], "$[0].given", "a bool comes back as an int"),
    (
        Tree,
        Tree.model_construct(value=1, children=[{"value": 2}]),
        "$.children[0]",
        "a dict comes back as a Tree",
    ),
    (Any, {"at": NAIVE}, "$.at", "a datetime comes back as a str"),
    # A subclass where its base is declared.
    (Animal, Bird(name="x", wings=4), "$", "declare it as Bird"),
    (list[Animal], [Animal(name="x"), Bird(name="x")], "$[1]", "declare it as Bird"),
    (Place, City("x"), "$", "declare it as City"),
    (str, Text("x"), "$", "give a str"),
    (int, Whole(1), "$", "give an int"),
    (float, Real(1.0), "$", "give a float"),
    (list[int], Rows([1]), "$", "give a list"),
    (datetime, Stamp(2026, 1, 1), "$", ""),
    (date, NAIVE, "$", ""),
    (dict[str, int], Counter("a"), "$", "give a dict"),
    (dict[str, int], OrderedDict(a=1), "$", "give a dict"),
    (dict[str, list[int]], {"a": Rows()}, "$.a", "give a list"),
    (str, Shade.DARK, "$", "give its .value"),
    (int, Level.HIGH, "$", "give its .value"),
    (dict[str, Any], {"a": Access.READ}, "$.a", "give its .value"),
    (tuple[int, str], Pair(1, "a"), "$", "declare it as Pair"),
    (list[int], (1, 2), "$", "a tuple comes back as a list"),
    (list[int], {1, 2}, "$", "a set comes back as a list"),
    (set[int], frozenset({1}), "$", ""),
    (Any, [(1, 2)], "$[0]", "declare it as tuple"),
    (deque[int], deque([1], maxlen=3), "$", "maxlen"),
    (defaultdict[str, int], defaultdict(lambda: 7, a=1), "$", "default_factory"),
    # Numbers and texts that only look alike.
    (int, True, "$", "a bool comes back as an int"),
    (bool, 1, "$", "an int comes back as a bool"),
    (int, 1.0, "$", "a float comes back as an int"),
    (int, "1", "$", "a str comes back as an int"),
    (str, b"x", "$", "a bytes comes back as a str"),
    (bytes, "abcd", "$", "a str comes back as a bytes"),
    (bytes, bytearray(b"x"), "$", "give a bytes"),
    (Any, [bytearray(b"x")], "$[0]", "declare it as bytes"),
    (list[bytes | None], [Blob(b"x")], "$[0]", "give a bytes"),
    (dict[bytes, int], {Blob(b"x"): 1}, "$", "as a key: a Blob comes back as a bytes"),
    (float, 2**53 + 1, "$", ""),
    (set[int], {True}, "$[0]", "a bool comes back as an int"),
    (int, BIG, "$", "more than 4,300 digits"),
    (Any, [BIG], "$[0]", "more than 4,300 digits"),
    (Tree, Tree(value=BIG), "$.value", "more than 4,300 digits"),
    (Holder, Holder(anything=float("nan")), "$.anything", "nan is not JSON"),
    (dict[str, Holder], {"a": Holder(anything=[float("inf")])}, "$.a.anything[0]", "inf is not JSON"),
    (Decimal, Decimal("NaN"), "$", "NaN is not JSON"),
    # Keys that meet.
    (Any, {1: "a", "1": "b"}, "$", ""),
    (Any, {1: "a"}, "$", "the key 1 comes back as a str"),
    (Any, {None: "a", "None": "b"}, "$", ""),
    (Any, {"a": {True: 1}}, "$.a", "the key True comes back as a str"),
    (Any, {(1, 2): 3}, "$", ""),
    (dict[str, int], {1: 5}, "$", "the key 1 comes back as a str"),
    (dict[str, int], {Shade.DARK: 5}, "$", "as a key: a Shade comes back as a str"),
    (dict[Any, int], {Color.RED: 1, "red": 2}, "$", "as a key: a Color comes back as a str"),
    (dict[Lower, int], {"a": 1, "A": 2}, "$.A", "does not know that key, or changes it"),
    (dict[int, int], {True: 1}, "$.True", "as a key"),
    (re.Pattern, re.compile("a+", re.DOTALL), "$", "its type does not write all of it"),
    # Times that are more than an instant.
    (datetime, datetime(2026, 7, 1, tzinfo=BERLIN), "$", "Europe/Berlin comes back as a fixed offset"),
    (datetime, NAIVE.replace(fold=1), "$", "fold=1"),
    (list[datetime], [datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=UTC)], "$[0]", "fold=1"),
    (dict[datetime, int], {datetime(2026, 7, 1, tzinfo=BERLIN): 1}, "$", "as a key: the time zone"),
    (dict[time, int], {time(1, fold=1): 1}, "$", "fold=1"),
    (Holder, Holder(anything=timedelta(1)), "$.anything", "a timedelta comes back as a str"),
]
"""Values that would come back as something else, the path of the part that would, and words of the advice."""
