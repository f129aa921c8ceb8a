"""Messages between a node and its runner, and their JSON; no I/O.

The order of a connection:

    node                                        runner
    Hello                              ->
                                       <-       Welcome (or Refused), then RestoreState, if the
                                                node's former process saved a state, and AddRoute
                                                for each route
                                       <-       Go, once every node of the dataflow has sent Hello
    AddSegment, OpenSegment, Log, ...  <->      AddRoute, StopNode, SetParam, SegmentFd, ...
    NodeLeaving                        ->       (the node ends by itself)

Unknown fields are ignored and missing ones take their defaults, so that neighbouring minor versions
work together; an unknown `kind` becomes `UnknownMessage`. Any other change needs a new
PROTOCOL_VERSION. How messages lie in frames: `frames`.
"""

from enum import StrEnum
from types import GenericAlias, UnionType
from typing import Any, ClassVar

from dora_node_api.errors import ControlError
from dora_node_api.frozen import FrozenRecord
from dora_node_api.queue_policy import QueuePolicy
from dora_node_api.transport.shared.specs import QueueSpec

PROTOCOL_VERSION = 1
INSPECTOR = "dora/inspector"
"""Node id of the reader of outputs for `dora topic`; not a valid id for a user's node."""
RECORDER = "dora/recorder"
"""Node id in the Hello of a recorder, which may read outputs of any dataflow of its user."""


class InputConfig(FrozenRecord):
    """One input of the node: its source and its queue."""

    id: str
    source: str
    """Source as users write it: `camera/image`, `dora/timer/millis/100`, `dora/logs/info`."""
    source_kind: str = "output"
    """`output`, `timer` or `logs`."""
    source_node: str | None = None
    interval_ns: int | None = None
    """Nanoseconds between two ticks of a timer."""
    queue_size: int = 10
    queue_policy: QueuePolicy = QueuePolicy.DROP_OLDEST
    input_timeout: float | None = None
    """Seconds without a message after which the input counts as closed; None: no timeout."""


class OperatorConfig(FrozenRecord):
    """One operator of a runtime node. The node has its ports as `operator/port`."""

    id: str
    python: str
    """File that holds `class Operator`, absolute or relative to the working directory."""
    outputs: tuple[str, ...] = ()


class NodeConfig(FrozenRecord):
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
    """Type of each output as written (`std/core/v1/Float32`), for DORA_RUNTIME_TYPE_CHECK."""
    output_structures: dict[str, Any] = {}  # noqa: RUF012 - never changed, replaced as a whole
    """Arrow types, as `data.typecheck` reads them, by output with a standard type."""
    cycles: tuple[tuple[str, ...], ...] = ()
    """Backpressure cycles through this node, each as node ids; a sender blocked on one gives up.
    After the ids follow, as `consumer/input`, the cycle's queues to other machines."""


class Message(FrozenRecord):
    """Base of the messages. `kind` names the message in JSON."""

    kind: ClassVar[str]

    def __init_subclass__(cls, *, kind: str) -> None:
        super().__init_subclass__()
        cls.kind = kind
        KINDS[kind] = cls


KINDS: dict[str, type[Message]] = {}
"""The messages by their `kind`."""


# --- node to runner ------------------------------------------------------------------------------


class Hello(Message, kind="hello"):
    """First message of a node. `incarnation` is None for a dynamic node."""

    node_id: str
    incarnation: int | None
    pid: int
    protocol: int = PROTOCOL_VERSION
    version: str = ""
    package: str = ""
    """Folder that `dora_node_api` was imported from."""


class AddSegment(Message, kind="segment"):
    """A new segment of the node's pool. One descriptor, read-only, for the node's consumers."""

    number: int
    size: int


class OpenSegment(Message, kind="open_segment"):
    """Request for another node's segment; answered by SegmentFd or SegmentUnknown."""

    request: int
    incarnation: int
    number: int


class Log(Message, kind="log"):
    """A log entry of this library, such as the first drop on an edge."""

    level: str
    """`error`, `warn`, `info`, `debug` or `trace`."""
    message: str
    target: str | None = None
    fields: dict[str, Any] | None = None


class CloseOutputs(Message, kind="close_outputs"):
    """These outputs send nothing more, though the process continues. None: all outputs."""

    outputs: tuple[str, ...] | None = None


class StopDataflow(Message, kind="stop_dataflow"):
    """Request to stop the whole dataflow."""

    reason: str


class ReportWaiting(Message, kind="waiting"):
    """A node waits for something outside of the dataflow; None: the wait is over."""

    text: str | None = None


class ReportDetails(Message, kind="details"):
    """Details that the program of a plug-in's node shows; replaces an earlier report."""

    details: dict[str, Any]


class SaveState(Message, kind="save_state"):
    """State for the next process of the node; replaces an earlier one. One descriptor, of a memory
    file with `size` bytes.
    """

    format: str
    """`bytes` or `arrow`, an IPC stream of one column."""
    size: int


class HoldUpdates(Message, kind="hold_updates"):
    """The node must not be replaced or removed now; ends with its process."""

    reason: str
    """Empty: released."""


class ExtensionRequest(Message, kind="extension_request"):
    """Use of the values of extensions; answered by ExtensionAnswer."""

    request: int
    action: str
    """`store`, `load`, `take` (load and drop) or `drop`."""
    namespace: str
    key: str
    value: str = ""
    """Base64."""


class WatchOutput(Message, kind="watch_output"):
    """Request of an inspector or recorder: send this output to a queue of its own, too.

    Answered by AddInput, whose input is named `node/output`, or by Refused.
    """

    node: str
    output: str


class NodeLeaving(Message, kind="leaving"):
    """The node ends by itself; end-of-file on the socket is expected after this."""


# --- runner to node ------------------------------------------------------------------------------


class Welcome(Message, kind="welcome"):
    """Answer to Hello. Descriptors: status board, consumer's ends of each queue, first segment."""

    incarnation: int
    config: NodeConfig
    queues: tuple[QueueSpec, ...] = ()
    board_size: int = 0
    segment_size: int = 0
    """Size of the first segment of the node's pool; 0: without one."""


class RecordingSource(Message, kind="recording_source"):
    """Follows the Welcome of a recorder: what it can record, and from which dataflow."""

    name: str | None
    working_dir: str
    machine_id: str | None
    outputs: tuple[str, ...]
    """Outputs of the nodes on this machine, as `node/output`."""
    descriptor: str
    """YAML of the dataflow with modules and variables expanded."""


class RestoreState(Message, kind="restore_state"):
    """Follows Welcome if the node's former process saved a state. Descriptor as in SaveState."""

    format: str
    size: int


class Refused(Message, kind="refused"):
    """Hello is refused; `message` gives the reason and the remedy."""

    message: str
    cancelled: bool = False
    """The dataflow does not start, for no fault of this process."""


class Go(Message, kind="go"):
    """All nodes have connected and the dataflow runs. Timers count from `epoch_ns`."""

    epoch_ns: int
    """CLOCK_MONOTONIC, nanoseconds."""


class StopNode(Message, kind="stop"):
    """Request to end the node. `reason` is the id of the STOP event.

    To a recorder: the dataflow has ended. It reads what is queued and disconnects.
    """

    reason: str = "MANUAL"
    restarts: bool = False
    """Whether another process of the node follows: a send waits for room instead of dropping its
    message.
    """


class AddRoute(Message, kind="add_route"):
    """Send this output to a further queue. Descriptors: the producer's ends."""

    output: str
    queue: QueueSpec


class RemoveRoute(Message, kind="remove_route"):
    """Write nothing more to this queue."""

    queue: int


class AddInput(Message, kind="add_input"):
    """A new input, or a new source of one. Descriptors: the consumer's ends; none for a timer."""

    input: InputConfig
    queue: QueueSpec | None = None


class RemoveInput(Message, kind="remove_input"):
    """The input was disconnected and closes."""

    input: str


class SendOutput(Message, kind="send_output"):
    """Send this on an output of the node (`dora topic pub`)."""

    output: str
    data: Any
    """JSON: a list becomes an Arrow array, anything else an array of length one."""
    metadata: dict[str, Any]


class SetParam(Message, kind="param_update"):
    """Set a parameter to a JSON value."""

    key: str
    value: Any


class DeleteParam(Message, kind="param_deleted"):
    """Delete a parameter."""

    key: str


class ReloadOperator(Message, kind="reload"):
    """Import the operator's file again. None: those of all operators."""

    operator: str | None = None


class SourceSegment(Message, kind="source_segment"):
    """First segment of a node that sends to this one; before Go. One descriptor, read-only.

    No request to a busy runner then delays the first event.
    """

    incarnation: int
    number: int
    size: int


class SegmentFd(Message, kind="segment_fd"):
    """Answer to OpenSegment, with one read-only descriptor."""

    request: int
    size: int


class SegmentUnknown(Message, kind="segment_unknown"):
    """Answer to OpenSegment: the segment does not exist (any more)."""

    request: int


class ExtensionAnswer(Message, kind="extension_answer"):
    """Answer to ExtensionRequest."""

    request: int
    value: str | None = None
    """Base64; None: does not exist, or was not requested."""
    problem: str | None = None


class ExtensionDropped(Message, kind="extension_dropped"):
    """A value was dropped that this node has stored or loaded."""

    namespace: str
    key: str


class UnknownMessage(Message, kind="unknown"):
    """A well-formed message of an unknown kind."""

    name: str


# --- messages to JSON and back -------------------------------------------------------------------


def to_json(value: Any) -> Any:
    """Return a message or record as a JSON object, other values as they are."""
    if isinstance(value, FrozenRecord):
        kind = {"kind": value.kind} if isinstance(value, Message) else {}
        return kind | {name: to_json(value.__dict__[name]) for name in value.__match_args__}
    return [to_json(item) for item in value] if isinstance(value, tuple | list) else value


def message_from_json(values: dict[str, Any]) -> Message:
    """Return the message of a JSON object. Raises ControlError, which names the field."""
    kind = values["kind"]
    if kind not in KINDS:
        return UnknownMessage(kind)
    message: Message = record_from_json(KINDS[kind], values, kind)
    return message


def record_from_json(record: type[FrozenRecord], values: Any, where: str) -> Any:
    """Return a record from a JSON object. Raises ControlError, which names the field."""
    if not isinstance(values, dict):
        raise ControlError(f"{where} is {type(values).__name__}, expected an object")
    given = {
        name: _checked(record.__annotations__[name], values[name], f"{where}.{name}")
        for name in record.__match_args__
        if name in values
    }
    try:
        return record(**given)
    except TypeError as error:
        raise ControlError(f"{where}: {error}") from error


def _checked(kind: Any, value: Any, where: str) -> Any:
    """Return `value` as the annotated type of a field. Raises ControlError."""
    if isinstance(kind, UnionType):  # with None
        return None if value is None else _checked(kind.__args__[0], value, where)
    if kind is Any:
        return value
    inner = kind.__args__[0] if isinstance(kind, GenericAlias) else None
    kind = kind if inner is None else kind.__origin__
    if issubclass(kind, FrozenRecord):
        return record_from_json(kind, value, where)
    if issubclass(kind, StrEnum):
        if value not in list(kind):
            raise ControlError(f"{where} is {value!r}, expected {' or '.join(kind)}")
        return kind(value)
    wanted: Any = {float: (int, float), tuple: list}.get(kind, kind)
    # JSON's true and false are ints to Python, but not valid here.
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
        raise ControlError(f"{where} is {type(value).__name__}, expected {kind.__name__}")
    return tuple(_checked(inner, item, where) for item in value) if kind is tuple else value
