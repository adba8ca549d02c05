"""The wish of a handler that its run continues as new, from its call until the handler has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from duramen._handlers.workflow import WorkflowDef
from duramen._values.checks import check_id
from duramen._values.serializer import CodecSerializer, JsonSerializer, round_trip
from duramen.errors import ContinueAsNew, InvalidArgument, UnknownWorkflow

from .exits import encoded, recorded

if TYPE_CHECKING:
    from duramen._values.serializer import Serializer

    from .services import Services

__all__ = ["Wish", "is_continuation", "next_version"]


def next_version(
    services: Services, workflow: str, version: str | WorkflowDef[Any, Any] | None
) -> WorkflowDef[Any, Any]:
    """The definition that a run of this workflow goes on with.

    Raises:
        InvalidArgument: what was given is of another workflow, or names no version.
        UnknownWorkflow: it is not registered here.
    """
    if isinstance(version, WorkflowDef):
        if version.name != workflow:
            raise InvalidArgument(
                f"a run of workflow {workflow!r} cannot continue as {version.name!r}: start one of that"
            )
        version = version.version
    elif version is not None:
        check_id("workflow version", version)
    found = services.definition(workflow, version)
    if found is None:
        raise UnknownWorkflow(workflow, version)
    return found


class Wish:
    """What the next generation is to begin with.

    The input takes the round trip when it is wished for, so that what cannot be recorded is raised where it
    comes from, and what is changed later (in a ``finally``) does not count. Codecs come when the handler has
    ended: one may be out for a while.

    Raises:
        SerializationError, PayloadTooLarge, DeserializationError: the input has no payload of that type.
        InvalidArgument: that version takes no input.
    """

    def __init__(self, serializer: Serializer, definition: WorkflowDef[Any, Any], value: Any) -> None:
        self.version: str = definition.version
        value = definition.input_or_default(value)
        if not definition.has_input and value is not None:
            raise InvalidArgument(
                f"version {self.version!r} of workflow {definition.name!r} takes no input: give none"
            )
        self._serializer = serializer
        self._value, self._type = value, definition.input_type
        self._plain: bytes | None = None
        inner = serializer.inner if isinstance(serializer, CodecSerializer) else serializer
        try:
            self._plain, _ = round_trip(inner, value, self._type)
        except OSError:
            if isinstance(inner, JsonSerializer):
                raise
            # A serializer that does the work of a codec, and is out: it is asked again at the end.

    def payload(self) -> bytes:
        """The input as it is recorded.

        Raises:
            Trouble: a codec is out.
            SerializationError, PayloadTooLarge, or whatever a serializer of the user's raises: it has none.
        """
        if self._plain is None:
            return recorded(self._serializer, self._value, self._type)[0]
        return encoded(self._serializer, self._plain)


def is_continuation(error: BaseException | None) -> bool:
    """Whether a handler that ended so leaves a wish in force: it returned, or what it called got through.

    What it raises otherwise (in a clean-up on the way) is a failure, and the wish falls with it.
    """
    # By its type: an exception of the user's may raise when it is asked for its class.
    cls = type(error)
    if issubclass(cls, BaseExceptionGroup):  # a TaskGroup in which a task called it
        group = cast("BaseExceptionGroup[BaseException]", error)
        return all(is_continuation(each) for each in group.exceptions)
    return error is None or issubclass(cls, ContinueAsNew)
