"""Durable execution as a library: workflows are `async def` functions, their truth is in a store you own."""

from importlib.metadata import version as _version

from . import errors
from ._handlers.context import Approval, Context
from ._handlers.workflow import Retry, StepContext, StepDef, WorkflowDef, step, step_context, workflow
from ._runtime.comparing import OperationDiff, RunDiff
from ._runtime.filters import RunFilters
from ._runtime.history import History
from ._runtime.settings import WorkOptions
from ._runtime.views import (
    Event,
    Page,
    RefusedSignal,
    RunHandle,
    RunRequest,
    RunResult,
    RunStatus,
    RunView,
    SchemaView,
    SignalResult,
    SweepResult,
    SweptRun,
    TimelineEntry,
    WorkerView,
)
from ._values.serializer import Codec, CodecSerializer, JsonSerializer, Serializer, register_exception
from .errors import (
    DuramenError,
    Fatal,
    RecordedError,
    RunCancelled,
    RunFailed,
    RunStuck,
    RunTerminated,
    StepFailed,
    StepTimeout,
)
from .runtime import Runtime

__version__ = _version("duramen")

__all__ = [
    "Approval",
    "Codec",
    "CodecSerializer",
    "Context",
    "DuramenError",
    "Event",
    "Fatal",
    "History",
    "JsonSerializer",
    "OperationDiff",
    "Page",
    "RecordedError",
    "RefusedSignal",
    "Retry",
    "RunCancelled",
    "RunDiff",
    "RunFailed",
    "RunFilters",
    "RunHandle",
    "RunRequest",
    "RunResult",
    "RunStatus",
    "RunStuck",
    "RunTerminated",
    "RunView",
    "Runtime",
    "SchemaView",
    "Serializer",
    "SignalResult",
    "StepContext",
    "StepDef",
    "StepFailed",
    "StepTimeout",
    "SweepResult",
    "SweptRun",
    "TimelineEntry",
    "WorkOptions",
    "WorkerView",
    "WorkflowDef",
    "errors",
    "register_exception",
    "step",
    "step_context",
    "workflow",
]
