"""Messages between a node and its runner, and their JSON; no I/O.

The order of a connection:

    node                                        runner
    Hello                              ->
                                       <-       Welcome (or Refused), then AddRoute for each route
                                       <-       Go, once every node of the dataflow has sent Hello
    Segment, OpenSegment, Log, ...     <->      AddRoute, Stop, ParamUpdate, SegmentFd, ...
    Leaving                            ->       (the node ends by itself)

Unknown fields are ignored and missing ones take their defaults, so that neighbouring minor versions
work together; an unknown `kind` becomes `UnknownMessage`. Any other change needs a new
PROTOCOL_VERSION. How messages lie in frames: `frames`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dora_node_api.errors import ControlError
from dora_node_api.frozen import Frozen

if TYPE_CHECKING:
    from dora_node_api.transport.shared.specs import QueueSpec

PROTOCOL_VERSION = 1
INSPECTOR = "dora/inspector"
"""Node id of the reader of outputs for `dora topic`; not a valid id for a user's node."""
RECORDER = "dora/recorder"
"""Node id in the Hello of a recorder, which may read outputs of any dataflow of its user."""


class InputConfig(Frozen):
    """One input of the node: its source and its queue."""

    id: str
    source: str
    """As users write it: `camera/image`, `dora/timer/millis/100`, `dora/logs/info`."""
    source_kind: str = "output"
    """`output`, `timer` or `logs`."""
    source_node: str | None = None
    source_output: str | None = None
    interval_ns: int | None = None
    """Of a timer: nanoseconds between two ticks."""
    queue_size: int = 10
    queue_policy: str = "drop_oldest"
    input_timeout: float | None = None
    """Seconds without a message after which the input counts as closed; None: no timeout."""


class OperatorConfig(Frozen):
    """One operator of a runtime node. The node has its ports as `operator/port`."""

    id: str
    python: str | None = None
    """File that holds `class Operator`, absolute or relative to the working directory."""
    shared_library: str | None = None
    name: str | None = None
    description: str | None = None
    inputs: tuple[str, ...] = ()
    """Ids of the operator's inputs, without the operator's id."""
    outputs: tuple[str, ...] = ()


class NodeConfig(Frozen):
    """Configuration of a node and its dataflow, sent by the runner."""

    dataflow_id: str
    node_id: str
    inputs: tuple[InputConfig, ...] = ()
    outputs: tuple[str, ...] = ()
    restart_count: int = 0
    descriptor: dict[str, Any] = {}  # noqa: RUF012 - never changed, replaced as a whole
    """The dataflow with modules and variables expanded."""
    machine_id: str | None = None
    pool_size: int | None = None
    """Bytes of shared memory this node may use; None: the default of the transport."""
    exit_when_nodes_finish: bool = False
    operators: tuple[OperatorConfig, ...] = ()
    dynamic: bool = False
    output_types: dict[str, Any] = {}  # noqa: RUF012 - never changed, replaced as a whole
    """By output: its type as written (`std/core/v1/Float32`), for DORA_RUNTIME_TYPE_CHECK."""
    cycles: tuple[tuple[str, ...], ...] = ()
    """Backpressure cycles through this node, each as node ids; a sender blocked on one gives up.
    After the ids follow, as `consumer/input`, the cycle's queues to other machines."""


# --- node to runner ------------------------------------------------------------------------------


class Hello(Frozen):
    """First message of a node. `incarnation` is None for a dynamic node."""

    kind = "hello"
    node_id: str
    incarnation: int | None
    pid: int
    protocol: int = PROTOCOL_VERSION
    version: str = ""
    python: str = ""
    """Path of the interpreter."""
    package: str = ""
    """Folder that `dora_node_api` was imported from."""


class Segment(Frozen):
    """A new segment of the node's pool. One descriptor, read-only, for the node's consumers."""

    kind = "segment"
    number: int
    size: int


class SegmentGone(Frozen):
    """A segment without references; the runner may close its descriptor."""

    kind = "segment_gone"
    number: int


class OpenSegment(Frozen):
    """Request for another node's segment; answered by SegmentFd or SegmentUnknown."""

    kind = "open_segment"
    request: int
    incarnation: int
    number: int


class Log(Frozen):
    """A log entry of this library, such as the first drop on an edge."""

    kind = "log"
    level: str
    """`error`, `warn`, `info`, `debug` or `trace`."""
    message: str
    target: str | None = None
    fields: dict[str, Any] | None = None


class CloseOutputs(Frozen):
    """These outputs send nothing more, though the process continues. None: all outputs."""

    kind = "close_outputs"
    outputs: tuple[str, ...] | None = None


class StopDataflow(Frozen):
    """Request to stop the whole dataflow."""

    kind = "stop_dataflow"
    reason: str


class WatchOutput(Frozen):
    """Request of an inspector or recorder: send this output to a queue of its own, too.

    Answered by AddInput, whose input is named `node/output`, or by Refused.
    """

    kind = "watch_output"
    node: str
    output: str


class Leaving(Frozen):
    """The node ends by itself; end-of-file on the socket is expected after this."""

    kind = "leaving"


class FindRunner(Frozen):
    """Request of a dynamic node to a daemon's local port: find the runner of this node id."""

    kind = "find_runner"
    node_id: str


# --- runner to node ------------------------------------------------------------------------------


class Welcome(Frozen):
    """Answer to Hello. Descriptors: the status board, then the consumer's ends of each queue."""

    kind = "welcome"
    incarnation: int
    config: NodeConfig
    queues: tuple[QueueSpec, ...] = ()
    board_size: int = 0
    node_area: int = 0
    """Offset of the node's words in the status board."""


class RecordingSource(Frozen):
    """Follows the Welcome of a recorder: what it can record, and from which dataflow."""

    kind = "recording_source"
    name: str | None
    working_dir: str
    machine_id: str | None
    outputs: tuple[str, ...]
    """Outputs of the nodes on this machine, as `node/output`."""
    descriptor: str
    """YAML of the dataflow with modules and variables expanded."""


class Refused(Frozen):
    """Hello or FindRunner is refused; `message` gives the reason and the remedy."""

    kind = "refused"
    message: str


class Go(Frozen):
    """All nodes have connected and the dataflow runs. Timers count from `epoch_ns`."""

    kind = "go"
    epoch_ns: int
    """CLOCK_MONOTONIC, nanoseconds."""


class Stop(Frozen):
    """Request to end the node. `reason` is the id of the STOP event.

    To a recorder: the dataflow has ended. It reads what is queued and disconnects.
    """

    kind = "stop"
    reason: str = "MANUAL"


class AddRoute(Frozen):
    """Send this output to a further queue. Descriptors: the producer's ends."""

    kind = "add_route"
    output: str
    queue: QueueSpec


class RemoveRoute(Frozen):
    """Write nothing more to this queue."""

    kind = "remove_route"
    queue: int


class AddInput(Frozen):
    """A new input, or a new source of one. Descriptors: the consumer's ends; none for a timer."""

    kind = "add_input"
    input: InputConfig
    queue: QueueSpec | None = None


class RemoveInput(Frozen):
    """The input was disconnected and closes."""

    kind = "remove_input"
    input: str


class SendOutput(Frozen):
    """Send this on an output of the node (`dora topic pub`)."""

    kind = "send_output"
    output: str
    data: Any
    """JSON: a list becomes an Arrow array, anything else an array of length one."""
    metadata: dict[str, Any]


class ParamUpdate(Frozen):
    """A parameter was set to a JSON value."""

    kind = "param_update"
    key: str
    value: Any


class ParamDeleted(Frozen):
    """A parameter was deleted."""

    kind = "param_deleted"
    key: str


class Reload(Frozen):
    """Import the operator's file again. None: those of all operators."""

    kind = "reload"
    operator: str | None = None


class SegmentFd(Frozen):
    """Answer to OpenSegment, with one read-only descriptor."""

    kind = "segment_fd"
    request: int
    size: int


class SegmentUnknown(Frozen):
    """Answer to OpenSegment: the segment does not exist (any more)."""

    kind = "segment_unknown"
    request: int


class FoundRunner(Frozen):
    """Answer to FindRunner: the Unix socket that expects Hello."""

    kind = "found_runner"
    socket: str
    dataflow_id: str


class UnknownMessage(Frozen):
    """A well-formed message of a kind that this version does not know."""

    kind = "unknown"
    name: str


NODE_MESSAGES: tuple[type[Frozen], ...] = (
    *(Hello, Segment, SegmentGone, OpenSegment, Log, CloseOutputs, StopDataflow, Leaving),
    *(FindRunner, WatchOutput),
)
RUNNER_MESSAGES: tuple[type[Frozen], ...] = (
    *(Welcome, Refused, Go, Stop, AddRoute, RemoveRoute, AddInput, RemoveInput),
    *(SendOutput, ParamUpdate, ParamDeleted, Reload, SegmentFd, SegmentUnknown, FoundRunner),
    RecordingSource,
)
_KINDS: dict[str, type[Frozen]] = {
    vars(message)["kind"]: message for message in (*NODE_MESSAGES, *RUNNER_MESSAGES)
}
_NESTED: dict[str, type[Frozen]] = {
    record.__name__: record for record in (InputConfig, OperatorConfig, NodeConfig)
}
_SCALARS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "dict[str, Any]": (dict,),
}


# --- message to JSON and back --------------------------------------------------------------------


def message_to_json(message: Frozen) -> dict[str, Any]:
    """Return a message as a JSON object."""
    return {"kind": vars(type(message))["kind"], **_to_json(message)}


def message_from_json(values: dict[str, Any]) -> Frozen:
    """Return the message of a JSON object. Raises ControlError, which names the field."""
    kind = values["kind"]
    if kind not in _KINDS:
        return UnknownMessage(kind)
    message: Frozen = record_from_json(_KINDS[kind], values, kind)
    return message


def _to_json(value: Any) -> Any:
    if isinstance(value, Frozen):
        return {name: _to_json(value.__dict__[name]) for name in value.__match_args__}
    if isinstance(value, tuple | list):
        return [_to_json(item) for item in value]
    if hasattr(value, "to_json"):
        return value.to_json()
    return value


def _from_json(annotation: str, value: Any, where: str) -> Any:
    """Return `value` as the type of a field's annotation. Raises ControlError."""
    if annotation.endswith(" | None"):
        return None if value is None else _from_json(annotation[:-7], value, where)
    if annotation == "Any":
        return value
    if annotation.startswith("tuple["):
        if not isinstance(value, list):
            raise ControlError(f"{where} is {type(value).__name__}, expected a list")
        return tuple(_from_json(annotation[6:-6], item, where) for item in value)
    if types := _SCALARS.get(annotation):
        # JSON's true and false are ints to Python, but not valid here.
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise ControlError(f"{where} is {type(value).__name__}, expected {annotation}")
        return value
    if not isinstance(value, dict):
        raise ControlError(f"{where} is {type(value).__name__}, expected an object")
    if annotation == "QueueSpec":
        from dora_node_api.transport.shared.specs import QueueSpec

        try:
            return QueueSpec.from_json(value)
        except (KeyError, TypeError, ValueError) as error:
            raise ControlError(f"{where} is not a queue: {error!r}") from error
    return record_from_json(_NESTED[annotation], value, where)


def record_from_json(record: type[Frozen], values: dict[str, Any], where: str) -> Any:
    """Return a record from a JSON object. Raises ControlError, which names the field."""
    annotations = record.__annotations__
    given = {
        name: _from_json(annotations[name], values[name], f"{where}.{name}")
        for name in record.__match_args__
        if name in values
    }
    try:
        return record(**given)
    except TypeError as error:
        raise ControlError(f"{where}: {error}") from error
