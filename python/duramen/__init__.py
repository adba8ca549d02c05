"""Durable execution as a library: workflows are `async def` functions, their truth is in a store you own."""

from importlib.metadata import version as _version

from . import errors
from ._handlers.calls.children import ChildHandle
from ._handlers.calls.ticks import ScheduleTick
from ._handlers.context import Approval, Context, Token
from ._handlers.mapping import MapResult
from ._handlers.middleware import Middleware, Next
from ._handlers.outcome import Outcome
from ._handlers.requests import Query, Update
from ._handlers.workflow import Retry, StepContext, StepDef, WorkflowDef, step, step_context, workflow
from ._runtime.comparing import OperationDiff, RunDiff
from ._runtime.deploys import CheckReport, OldestRun, PatchReport, PatchView, RunProblem, VersionView
from ._runtime.differences import Difference
from ._runtime.filters import RunFilters
from ._runtime.history import History
from ._runtime.settings import WorkOptions
from ._runtime.views import (
    Event,
    Page,
    PauseResult,
    RefusedSignal,
    ResumeResult,
    RunHandle,
    RunRequest,
    RunResult,
    RunStatus,
    RunView,
    ScheduleView,
    SchemaView,
    SignalResult,
    StreamItem,
    SweepResult,
    SweptRun,
    TimelineEntry,
    WorkerView,
)
from ._schedules.schedule import Schedule
from ._schedules.times import When, cron, every
from ._values.serializer import Codec, CodecSerializer, JsonSerializer, Serializer, register_exception
from .errors import (
    ChildCancelled,
    ChildConflict,
    ChildFailed,
    ChildTerminated,
    DuramenError,
    Fatal,
    MapFailed,
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
    "CheckReport",
    "ChildCancelled",
    "ChildConflict",
    "ChildFailed",
    "ChildHandle",
    "ChildTerminated",
    "Codec",
    "CodecSerializer",
    "Context",
    "Difference",
    "DuramenError",
    "Event",
    "Fatal",
    "History",
    "JsonSerializer",
    "MapFailed",
    "MapResult",
    "Middleware",
    "Next",
    "OldestRun",
    "OperationDiff",
    "Outcome",
    "Page",
    "PatchReport",
    "PatchView",
    "PauseResult",
    "Query",
    "RecordedError",
    "RefusedSignal",
    "ResumeResult",
    "Retry",
    "RunCancelled",
    "RunDiff",
    "RunFailed",
    "RunFilters",
    "RunHandle",
    "RunProblem",
    "RunRequest",
    "RunResult",
    "RunStatus",
    "RunStuck",
    "RunTerminated",
    "RunView",
    "Runtime",
    "Schedule",
    "ScheduleTick",
    "ScheduleView",
    "SchemaView",
    "Serializer",
    "SignalResult",
    "StepContext",
    "StepDef",
    "StepFailed",
    "StepTimeout",
    "StreamItem",
    "SweepResult",
    "SweptRun",
    "TimelineEntry",
    "Token",
    "Update",
    "VersionView",
    "When",
    "WorkOptions",
    "WorkerView",
    "WorkflowDef",
    "cron",
    "errors",
    "every",
    "register_exception",
    "step",
    "step_context",
    "workflow",
]
