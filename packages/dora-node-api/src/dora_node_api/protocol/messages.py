"""The messages between a node and its runner, and how they lie on the wire; no I/O.

A frame is a 4-byte length of the body, a 2-byte number of file descriptors (both in network
order), and the body: one JSON object whose `kind` names the message. Descriptors travel as
SCM_RIGHTS beside the first bytes of the frame, at most `DESCRIPTORS_PER_PIECE` beside one byte, so
that a frame may carry more of them than the kernel takes in one call.

The order of a connection:

    node                                        runner
    Hello                              ->
                                       <-       Welcome (or Refused), then AddRoute for each route
                                       <-       Go, once every node of the dataflow has said Hello
    Segment, OpenSegment, Log, ...     <->      AddRoute, Stop, ParamUpdate, SegmentFd, ...
    Leaving                            ->       (the node ends by itself)

Fields that a message does not know are ignored and missing ones take their defaults, so that
neighbouring minor versions understand each other; an unknown `kind` becomes `UnknownMessage`.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dora_node_api.errors import ControlError
from dora_node_api.frozen import Frozen

if TYPE_CHECKING:
    from dora_node_api.transport.shared.specs import QueueSpec

PROTOCOL_VERSION = 1
INSPECTOR = "dora/inspector"
"""Whoever reads outputs for `dora topic`; no node of a user can have that name."""
HEADER = struct.Struct("!IH")
# A Welcome carries the descriptor of the dataflow, which may be long; more than this is garbage.
LARGEST_BODY = 64 * 1024 * 1024
# The kernel takes at most 253 descriptors in one call (SCM_MAX_FD).
DESCRIPTORS_PER_PIECE = 200


class InputConfig(Frozen):
    """One input of the node: where it comes from and how much of it waits."""

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
    """Seconds without a message after which the input counts as closed; None: never."""


class OperatorConfig(Frozen):
    """One operator of a runtime node. Its ports are the node's, as `operator/port`."""

    id: str
    python: str | None = None
    """File that holds `class Operator`, absolute or relative to the working directory."""
    shared_library: str | None = None
    name: str | None = None
    description: str | None = None
    inputs: tuple[str, ...] = ()
    """Ids of the operator's inputs, without the operator's own id."""
    outputs: tuple[str, ...] = ()


class NodeConfig(Frozen):
    """What the runner tells a node about itself and its dataflow."""

    dataflow_id: str
    node_id: str
    inputs: tuple[InputConfig, ...] = ()
    outputs: tuple[str, ...] = ()
    restart_count: int = 0
    descriptor: dict[str, Any] = {}  # noqa: RUF012 - never changed, replaced as a whole
    """The dataflow, modules and variables expanded."""
    machine_id: str | None = None
    pool_size: int | None = None
    """Bytes of shared memory this node may use; None: the default of the transport."""
    exit_when_nodes_finish: bool = False
    operators: tuple[OperatorConfig, ...] = ()
    dynamic: bool = False
    output_types: dict[str, Any] = {}  # noqa: RUF012 - never changed, replaced as a whole
    """By output: its type as written (`std/core/v1/Float32`), for DORA_RUNTIME_TYPE_CHECK."""
    cycles: tuple[tuple[str, ...], ...] = ()
    """Backpressure cycles this node lies on, each as node ids; a sender blocked on one gives up.
    After the ids, as `consumer/input`, queues to other machines that lie on it."""


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
    """A new segment of the node's pool. One descriptor, which the runner hands on read-only."""

    kind = "segment"
    number: int
    size: int


class SegmentGone(Frozen):
    """A segment that nothing refers to any more; the runner may close its descriptor."""

    kind = "segment_gone"
    number: int


class OpenSegment(Frozen):
    """Asks for another node's segment; answered by SegmentFd or SegmentUnknown."""

    kind = "open_segment"
    request: int
    incarnation: int
    number: int


class Log(Frozen):
    """A log entry of the node's library itself, such as the first drop on an edge."""

    kind = "log"
    level: str
    """`error`, `warn`, `info`, `debug` or `trace`."""
    message: str
    target: str | None = None
    fields: dict[str, Any] | None = None


class CloseOutputs(Frozen):
    """These outputs bring nothing more, though the process lives on. None: all of them."""

    kind = "close_outputs"
    outputs: tuple[str, ...] | None = None


class StopDataflow(Frozen):
    """An operator returned STOP_ALL: the whole dataflow is to be stopped."""

    kind = "stop_dataflow"
    reason: str


class WatchOutput(Frozen):
    """From an inspector, which is no node: send this output to a queue of mine, too.

    Answered by AddInput, whose input has the name `node/output`, or by Refused.
    """

    kind = "watch_output"
    node: str
    output: str


class Leaving(Frozen):
    """The node ends by itself; end-of-file on the socket is no surprise after this."""

    kind = "leaving"


class FindRunner(Frozen):
    """To a daemon's local port, from a dynamic node: which runner has this node id?"""

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


class Refused(Frozen):
    """Hello or FindRunner is turned down; the sentence says why and what to do."""

    kind = "refused"
    message: str


class Go(Frozen):
    """Every node has connected: the dataflow runs. Timers count from `epoch_ns`."""

    kind = "go"
    epoch_ns: int
    """CLOCK_MONOTONIC, nanoseconds."""


class Stop(Frozen):
    """The node is asked to end. `reason` is the id of the STOP event."""

    kind = "stop"
    reason: str = "MANUAL"


class AddRoute(Frozen):
    """An output now also goes to this queue. Descriptors: the producer's ends."""

    kind = "add_route"
    output: str
    queue: QueueSpec


class RemoveRoute(Frozen):
    """Nothing more is to be written to this queue."""

    kind = "remove_route"
    queue: int


class AddInput(Frozen):
    """A new input, or a new source of one. Descriptors: the consumer's ends; none for a timer."""

    kind = "add_input"
    input: InputConfig
    queue: QueueSpec | None = None


class RemoveInput(Frozen):
    """This input is no longer connected: it closes."""

    kind = "remove_input"
    input: str


class SendOutput(Frozen):
    """Send this on one of your outputs: somebody publishes in the node's name."""

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
    """The operator's file changed: import it again. None: every operator."""

    kind = "reload"
    operator: str | None = None


class SegmentFd(Frozen):
    """Answer to OpenSegment, with one read-only descriptor."""

    kind = "segment_fd"
    request: int
    size: int


class SegmentUnknown(Frozen):
    """Answer to OpenSegment: there is no such segment (any more)."""

    kind = "segment_unknown"
    request: int


class FoundRunner(Frozen):
    """Answer to FindRunner: the Unix socket to say Hello on."""

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


def _to_json(value: Any) -> Any:
    if isinstance(value, Frozen):
        return {name: _to_json(value.__dict__[name]) for name in value.__match_args__}
    if isinstance(value, tuple | list):
        return [_to_json(item) for item in value]
    if hasattr(value, "to_json"):
        return value.to_json()
    return value


def _from_json(annotation: str, value: Any, where: str) -> Any:
    """`value` as the type that the annotation of a field names. Raises ControlError."""
    if annotation.endswith(" | None"):
        return None if value is None else _from_json(annotation[:-7], value, where)
    if annotation == "Any":
        return value
    if annotation.startswith("tuple["):
        if not isinstance(value, list):
            raise ControlError(f"{where} is {type(value).__name__}, expected a list")
        return tuple(_from_json(annotation[6:-6], item, where) for item in value)
    if types := _SCALARS.get(annotation):
        # JSON's true and false are ints to Python, never to us.
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
            raise ControlError(f"{where} is no queue: {error!r}") from error
    return record_from_json(_NESTED[annotation], value, where)


def record_from_json(record: type[Frozen], values: dict[str, Any], where: str) -> Any:
    """A `record` from a JSON object, each field checked. Raises ControlError naming the field."""
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


# --- frames --------------------------------------------------------------------------------------


class Piece(Frozen):
    """Bytes to send in one call, and the descriptors that go beside their first byte."""

    data: bytes
    descriptors: tuple[int, ...] = ()


def encode(message: Frozen, descriptors: Sequence[int] = ()) -> list[Piece]:
    """One message as pieces to send in order; a piece with descriptors must go in one `sendmsg`.

    If the kernel takes only part of a piece, the descriptors went with that part: send the rest
    without them. The descriptors stay the caller's; close them after the last piece was sent.
    """
    kind: str = vars(type(message))["kind"]
    body = json.dumps({"kind": kind, **_to_json(message)}, separators=(",", ":")).encode()
    if len(body) > LARGEST_BODY:
        raise ControlError(f"a {kind} message of {len(body)} bytes: at most {LARGEST_BODY} fit")
    frame = HEADER.pack(len(body), len(descriptors)) + body
    pieces = []
    while len(descriptors) > DESCRIPTORS_PER_PIECE:
        pieces.append(Piece(frame[:1], tuple(descriptors[:DESCRIPTORS_PER_PIECE])))
        frame, descriptors = frame[1:], descriptors[DESCRIPTORS_PER_PIECE:]
    return [*pieces, Piece(frame, tuple(descriptors))]


def decode(body: bytes) -> Frozen:
    """The message in the body of a frame. Raises ControlError for anything else."""
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ControlError(f"not JSON: {body[:80]!r}") from error
    if not isinstance(values, dict) or not isinstance(values.get("kind"), str):
        raise ControlError(f"no message: {body[:80]!r}")
    kind = values["kind"]
    if kind not in _KINDS:
        return UnknownMessage(kind)
    message: Frozen = record_from_json(_KINDS[kind], values, kind)
    return message


class Received(Frozen):
    """A message and the descriptors that came with it, which are the receiver's to close."""

    message: Frozen
    descriptors: tuple[int, ...] = ()


class FrameDecoder:
    """Bytes and descriptors in, messages out.

    Feed it what each `recvmsg` returned and take messages until None. A ControlError that is not
    fatal concerns one message only: go on taking. After a fatal one, close the connection.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._descriptors: list[int] = []
        self.errors = 0
        """Frames that were no message."""

    def feed(self, data: bytes, descriptors: Iterable[int] = ()) -> None:
        """Take in bytes and the descriptors that came beside them. Makes no call."""
        self._data += data
        self._descriptors += descriptors

    def next_message(self) -> Received | None:
        """The next message, or None until more bytes come. Raises ControlError, counted."""
        data = self._data
        if len(data) < HEADER.size:
            return None
        length, count = HEADER.unpack_from(data)
        if length > LARGEST_BODY:
            self.errors += 1
            raise ControlError(
                f"a frame of {length} bytes (at most {LARGEST_BODY}) is not of the dora protocol",
                fatal=True,
            )
        end = HEADER.size + length
        if len(data) < end:
            return None
        body = bytes(data[HEADER.size : end])
        if count > len(self._descriptors):
            self.errors += 1
            raise ControlError(
                f"a frame names {count} file descriptors but {len(self._descriptors)} came with it;"
                " has this process run out of descriptors (ulimit -n)?",
                fatal=True,
            )
        descriptors = tuple(self._descriptors[:count])
        try:
            received = Received(decode(body), descriptors)
        except ControlError:
            self.errors += 1
            del data[:end], self._descriptors[:count]
            close_all(descriptors)
            raise
        # Last, and without a call: what a signal handler raises before loses no message.
        del data[:end], self._descriptors[:count]
        return received

    def close(self) -> None:
        """Close descriptors that came but belong to no complete message."""
        close_all(self._descriptors)
        self._descriptors.clear()
        self._data.clear()


def close_all(descriptors: Iterable[int]) -> None:
    """Close descriptors, those that are closed already included."""
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)
