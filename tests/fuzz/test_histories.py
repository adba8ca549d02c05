"""Histories that were tampered with: a replay ends, with its outcome or a typed error, and runs nothing."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from duramen._bridge import ENCODING
from duramen._runtime.history import dump_payload, load_payload, read_history
from duramen.errors import InvalidHistory, ReplayDiverged
from duramen.testing import Replayed, replay
from tests.fuzz.effort import effort
from tests.histories.case import CASES

# The frozen histories are the corpus: every mutant is near to something that some version wrote.
FOLDER = Path(__file__).parents[1] / "histories"
for module in sorted((FOLDER / "code").glob("*.py")):
    importlib.import_module(f"tests.histories.code.{module.stem}")
CORPUS = {name: (FOLDER / f"{name}.json").read_text() for name in sorted(CASES)}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
kinds = st.sampled_from(
    sorted({entry["kind"] for text in CORPUS.values() for entry in json.loads(text)["journal"]})
)
ops = st.sampled_from(
    sorted({entry["op"] for text in CORPUS.values() for entry in json.loads(text)["journal"]})
) | st.text(max_size=5)
numbers = st.integers(0, 5) | st.sampled_from([-(2**63), 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1])
metas = (
    st.none()
    | st.text(max_size=5)
    | st.fixed_dictionaries(
        {},
        optional={
            "attempt": numbers,
            "retry_at": numbers,
            "deadline": numbers,
            "cause": numbers,
            "wait": st.sampled_from(["timer", "event:a", "event:paid", "approval:approval-1"])
            | st.text(max_size=3),
            "message": st.text(max_size=3),
        },
    ).map(json.dumps)
)
payloads = (
    st.text(max_size=8)
    | json_values.map(json.dumps)
    | st.binary(max_size=8).map(dump_payload)
    | st.sampled_from(
        sorted(
            {
                json.dumps(entry["payload"])
                for text in CORPUS.values()
                for entry in json.loads(text)["journal"]
            }
        )
    ).map(json.loads)
)
instants = (
    st.integers(0, 10**4) | st.integers(1_700_000_000_000, 1_800_000_000_000) | st.just(253_402_300_799_999)
)
entries = st.fixed_dictionaries(
    {
        "encoding": st.sampled_from([1, 1, 1, 0, 2]),
        "kind": kinds,
        "op": ops,
        "meta": metas,
        "payload": payloads,
        "at": instants,
    }
)
place = st.integers(0, 30)

Mutation = Callable[[list[dict[str, Any]]], None]


def mutation(change: Callable[..., None]) -> Callable[..., Mutation]:
    def make(*args: Any) -> Mutation:
        def apply(journal: list[dict[str, Any]]) -> None:
            if journal:
                change(journal, *args)

        apply.__name__ = apply.__qualname__ = f"{change.__name__}{args}"
        return apply

    return make


@mutation
def drop(journal: list[Any], at: int) -> None:
    del journal[at % len(journal)]


@mutation
def cut(journal: list[Any], at: int) -> None:
    del journal[at % len(journal) + 1 :]


@mutation
def swap(journal: list[Any], one: int, other: int) -> None:
    one, other = one % len(journal), other % len(journal)
    journal[one], journal[other] = journal[other], journal[one]


@mutation
def repeat(journal: list[Any], at: int, to: int) -> None:
    journal.insert(to % (len(journal) + 1), dict(journal[at % len(journal)]))


@mutation
def insert(journal: list[Any], at: int, entry: dict[str, Any]) -> None:
    journal.insert(at % (len(journal) + 1), entry)


@mutation
def put(journal: list[Any], at: int, field: str, entry: dict[str, Any]) -> None:
    journal[at % len(journal)] = {**journal[at % len(journal)], field: entry[field]}


fields = st.sampled_from(["encoding", "kind", "op", "meta", "payload", "at"])
mutations = st.one_of(
    st.builds(drop, place),
    st.builds(cut, place),
    st.builds(swap, place, place),
    st.builds(repeat, place, place),
    st.builds(insert, place, entries),
    st.builds(put, place, fields, entries),
    st.builds(put, place, fields, entries),
)


@effort(400)
@given(
    name=st.sampled_from(sorted(CORPUS)),
    changes=st.lists(mutations, min_size=1, max_size=4),
    run=st.fixed_dictionaries(
        {}, optional={"deadline": instants, "created_at": instants, "started_at": instants}
    ),
)
def test_a_mutated_history_ends_or_diverges(name: str, changes: list[Mutation], run: dict[str, int]) -> None:
    history = json.loads(CORPUS[name])
    history["run"].update(run)
    for change in changes:
        change(history["journal"])
    case = CASES[name]
    error, done = None, None
    try:
        done = replay(case.workflow, history, serializer=case.serializer, others=case.others)
    except (ReplayDiverged, InvalidHistory) as caught:
        error = caught
    length = len(history["journal"])
    if isinstance(error, ReplayDiverged):
        assert error.difference
        assert 0 <= error.index <= length
    elif error is not None:
        # The mutants have the right form: only their beginning can be wrong, or what they need to be read.
        needed = max((entry["encoding"] for entry in history["journal"]), default=0)
        if needed > ENCODING:
            assert error.path.endswith("].encoding")
            assert f"reads encoding {needed}," in str(error)
        else:
            assert not length or error.path == "$.journal[0].kind"
    else:
        assert isinstance(done, Replayed)
        assert done.entries <= length


@effort(150)
@given(name=st.sampled_from(sorted(CORPUS)), path=st.lists(place, min_size=1, max_size=3), value=json_values)
def test_a_history_with_anything_anywhere_is_read_or_refused(name: str, path: list[int], value: Any) -> None:
    history = json.loads(CORPUS[name])
    node: Any = history
    for depth, step in enumerate(path):
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            break
        key = keys[step % len(keys)]
        if depth == len(path) - 1 or not isinstance(node[key], dict | list):
            node[key] = value
            break
        node = node[key]
    try:
        again = read_history(history)
    except InvalidHistory as caught:
        again, place = None, caught.path
    assert again == history or place.startswith("$")


@effort(150)
@given(text=st.text() | st.binary() | json_values.map(json.dumps))
@example(text='{"format": 1}')
@example(text='{"format": 1e400}')
@example(text="\ud800")
def test_text_of_anything_is_no_history(text: str | bytes) -> None:
    with pytest.raises(InvalidHistory):
        read_history(text)


@effort(150)
@given(data=st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
@example(data=b"\xef\xbb\xbf{}")
@example(data=b"[" * 100_000)
@example(data=b"1" * 5000)
@example(data='"\ud800"'.encode("utf-8", "surrogatepass"))
def test_every_payload_survives_a_history(data: bytes) -> None:
    kept = dump_payload(data)
    assert load_payload(json.loads(json.dumps(kept))) == data
