"""The error tree: one root, texts that say what to do, and errors that survive copying and pickling."""

import copy
import inspect
import pickle
from typing import Any

import pytest

from duramen import MapResult, errors
from duramen.errors import ContinueAsNew, DuramenError, RecordedError, RunEvicted, StepFailed

RECORDED = RecordedError("shop.OutOfStock", "no bolts", cause=RecordedError("builtins.KeyError", "'bolts'"))
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "ApprovalConflict": ("run-1", "approval-1"),
    "ChildCancelled": ("run-1/child-1", "child-1", RECORDED),
    "ChildConflict": ("run-1/child-1", "child-1", RECORDED),
    "ChildFailed": ("run-1/child-1", "child-1", RECORDED),
    "ChildTerminated": ("run-1/child-1", "child-1", RECORDED),
    "DeserializationError": ("$.a", "no"),
    "DuplicateWorkflow": ("name", "2", "shop.py"),
    "EventRejected": ("run-1", "paid", "$.amount: no"),
    "InvalidHistory": ("$.run", "no"),
    "MapFailed": ("map-1", MapResult(2, {0: 1}, {})),
    "PayloadTooLarge": (3_000_000, 2_000_000, "input"),
    "QueryFailed": ("run-1", "balance", "it raised"),
    "ReplayDiverged": ("run-1", "expected step 'a', found timer", 3, "> 3 step", "workflow 'flow'"),
    "RunCancelled": ("run-1", "no longer wanted"),
    "RunFailed": ("run-1", RECORDED),
    "RunFinished": ("run-1", "completed", "it takes no more"),
    "RunIdConflict": ("run-1", "new", "old"),
    "RunStuck": ("run-1", "expected step 'a', found timer"),
    "RunTerminated": ("run-1", "bye"),
    "RunTimedOut": ("run-1", "after 30 days"),
    "SerializationError": ("$.a", "no"),
    "StepFailed": ("reserve", 3, RECORDED),
    "StepTimeout": ("reserve", 1, RECORDED),
    "StreamTruncated": ("run-1", "log", 3, 7),
    "TokenConflict": ("run-1", "token-1"),
    "TokenFailed": ("token-1", "no"),
    "TokenRejected": ("run-1", "token-1", "$.a: no"),
    "UnknownQuery": ("run-1", "balance"),
    "UnknownRun": ("run-1",),
    "UnknownWorkflow": ("name", "2"),
    "UpdateFailed": ("run-1", "deposit", RECORDED),
    "UpdateRejected": ("run-1", "deposit", "too little"),
    "UpdateTimeout": ("run-1", "deposit", "u-1"),
}
CLASSES = [
    cls
    for name in errors.__all__
    if issubclass(cls := getattr(errors, name), BaseException) and cls not in {ContinueAsNew, RunEvicted}
]


def make(cls: type[DuramenError]) -> DuramenError:
    return cls(*ARGUMENTS.get(cls.__name__, ("something went wrong",)))


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_is_in_the_tree_and_described_in_a_line(cls: type[DuramenError]) -> None:
    assert issubclass(cls, DuramenError)
    summary = (cls.__doc__ or "").splitlines()[0]
    assert summary.endswith((".", "`", ")", "?"))
    assert summary != (DuramenError.__doc__ or "").splitlines()[0] or cls is DuramenError


@pytest.mark.parametrize("cls", CLASSES)
def test_texts_name_what_they_were_given(cls: type[DuramenError]) -> None:
    text = str(make(cls))
    assert text
    for given in ARGUMENTS.get(cls.__name__, ("something went wrong",)):
        argument = given.message if isinstance(given, RecordedError) else given
        assert (f"{argument:,}" if isinstance(argument, int) and argument > 999 else str(argument)) in text


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_errors_survive_copying_and_pickling(cls: type[DuramenError], protocol: int) -> None:
    error = make(cls)
    error.add_note("a note")
    for again in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error, protocol))):
        assert type(again) is cls
        assert again.args == error.args
        assert str(again) == str(error)
        assert vars(again) == vars(error)


@pytest.mark.parametrize("cls", CLASSES)
def test_errors_can_be_raised_and_caught_as_their_builtin_relatives(cls: type[DuramenError]) -> None:
    error = make(cls)
    for parent in inspect.getmro(cls)[:-2]:
        with pytest.raises(parent):
            raise error


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("InvalidArgument", ValueError),
        ("InvalidId", ValueError),
        ("NotDurableError", RuntimeError),
        ("RunTimedOut", TimeoutError),
        ("StepTimeout", TimeoutError),
        ("StepTimeout", StepFailed),
        ("StoreUnavailable", ConnectionError),
        ("UnknownRun", LookupError),
        ("WorkflowDefinitionError", TypeError),
    ],
)
def test_errors_are_what_python_calls_them_too(name: str, builtin: type[Exception]) -> None:
    assert issubclass(getattr(errors, name), builtin)


def test_a_failed_step_says_type_text_and_attempts() -> None:
    assert str(StepFailed("reserve", 3, RECORDED)) == (
        "step 'reserve' failed after 3 attempts: OutOfStock: no bolts"
    )
    assert "after 1 attempt:" in str(StepFailed("reserve", 1, RECORDED))


def test_the_eviction_of_a_run_is_no_ordinary_exception() -> None:
    for control in (RunEvicted, ContinueAsNew):
        assert not issubclass(control, Exception)
        assert not issubclass(control, DuramenError)


def test_recorded_errors_are_values() -> None:
    assert pickle.loads(pickle.dumps(RECORDED)) == RECORDED
    assert hash(RecordedError("a.B", "c")) == hash(RecordedError("a.B", "c"))
    assert str(RecordedError("a.B", "")) == "B"
