"""daemon <-> runner: control messages beside plan, events and results; does no I/O.

A runner supervises the nodes of one dataflow on one machine. It is given a :class:`RunPlan`, tells
what happens as :data:`RunnerEvent` values (in ``run_plan`` and ``runner_events``, offered here
too), and answers :data:`RunnerRequest` values on its control socket.

On the socket a message is one line of JSON: ``{"id": 3, "request": {...}}``,
``{"id": 3, "reply": {...}}`` or ``{"notice": {...}}``. A runner outlives the daemon that started
it, so both sides accept the other's next and previous minor version: unknown fields are ignored,
every field that is added has a default, a request of an unknown kind is answered with
:class:`Refusal`, and a notice of an unknown kind is skipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError

from dora_config.dataflow.resolved import ResolvedNode
from dora_config.protocol.links import LinkCounters, LinkReport, SetLinkPeers, SetLinks
from dora_config.protocol.run_plan import LogSettings, NodeLocation, RunPlan
from dora_config.protocol.runner_events import (
    LOG_LEVELS,
    DataflowFinished,
    DataflowResult,
    DataflowStarted,
    DataflowStopping,
    LinkChanged,
    LogLevel,
    LogLine,
    LogLinesDropped,
    NodeConnected,
    NodeEnded,
    NodeFailed,
    NodeRestarting,
    NodeResult,
    NodeSpawned,
    NodesReady,
    RunnerEvent,
    WaitingChanged,
)
from dora_config.protocol.runner_message import RunnerMessage

RUNNER_PROTOCOL: Final = (1, 0)
"""Major and minor version of these messages."""

MAX_LINE: Final = 64 * 1024 * 1024
"""Bytes one message may take on the socket."""

# ---------------------------------------------------------------------------------- requests


class Handshake(RunnerMessage):
    """First request on a connection; answered with :class:`HandshakeReply` or refused."""

    kind: Literal["greet"] = "greet"
    protocol: tuple[int, int] = RUNNER_PROTOCOL


class GetStatus(RunnerMessage):
    """Answered with :class:`RunnerStatus`."""

    kind: Literal["get_status"] = "get_status"


class GetStatistics(RunnerMessage):
    """Answered with :class:`Statistics`: the counters of every edge that ends here."""

    kind: Literal["get_statistics"] = "get_statistics"


class Release(RunnerMessage):
    """Open the start barrier (see ``RunPlan.hold_at_barrier``); repeating it does no harm."""

    kind: Literal["release"] = "release"


class StopAllNodes(RunnerMessage):
    """Stop all nodes; ``grace`` ``None``: the plan's. Answered when the stop has begun."""

    kind: Literal["stop_dataflow"] = "stop_dataflow"
    grace: float | None = None
    force: bool = False
    reason: str = "stop requested"


class StopNode(RunnerMessage):
    """Stop one node for good. Answered when it has ended."""

    kind: Literal["stop_node"] = "stop_node"
    node: str
    grace: float = 10.0


class RestartNode(RunnerMessage):
    """Stop one node and start it again whatever its policy. Answered when the new process runs."""

    kind: Literal["restart_node"] = "restart_node"
    node: str
    grace: float = 5.0


class AddNode(RunnerMessage):
    """Add a node to the running dataflow. Answered when it was spawned."""

    kind: Literal["add_node"] = "add_node"
    node: ResolvedNode
    place: NodeLocation = NodeLocation()


class RemoveNode(RunnerMessage):
    """Stop a node and drop its edges. Answered when it has ended."""

    kind: Literal["remove_node"] = "remove_node"
    node: str
    grace: float = 10.0


class ReplaceNode(RunnerMessage):
    """Run another program under the id and the ports of a node; the new process starts first."""

    kind: Literal["replace_node"] = "replace_node"
    node: ResolvedNode
    place: NodeLocation = NodeLocation()
    grace: float = 10.0


class ConnectInput(RunnerMessage):
    """Add the edge ``source/output -> target/input``."""

    kind: Literal["connect_input"] = "connect_input"
    source: str
    output: str
    target: str
    input: str
    queue_size: int = 10
    queue_policy: Literal["drop_oldest", "backpressure"] = "drop_oldest"
    input_timeout: float | None = None


class DisconnectInput(RunnerMessage):
    """Remove the edge ``source/output -> target/input``."""

    kind: Literal["disconnect_input"] = "disconnect_input"
    source: str
    output: str
    target: str
    input: str


class SetParam(RunnerMessage):
    """Store a parameter of a node (any JSON value) and tell the node."""

    kind: Literal["set_param"] = "set_param"
    node: str
    key: str
    value: Any = None


class DeleteParam(RunnerMessage):
    kind: Literal["delete_param"] = "delete_param"
    node: str
    key: str


class GetParams(RunnerMessage):
    """Answered with :class:`Params`."""

    kind: Literal["get_params"] = "get_params"
    node: str


class Publish(RunnerMessage):
    """Inject one message as if ``node`` had sent it on ``output``."""

    kind: Literal["publish"] = "publish"
    node: str
    output: str
    data: Any = None
    """A JSON value: a list becomes an Arrow array, anything else an array of length one."""
    metadata: dict[str, Any] = Field(default_factory=dict)


class Reload(RunnerMessage):
    """Hot-reload an operator of a node (``None``: all of them)."""

    kind: Literal["reload"] = "reload"
    node: str
    operator: str | None = None


class FollowEvents(RunnerMessage):
    """From now on every event comes as a notice; with ``logs`` also each :class:`LogLine`."""

    kind: Literal["follow_events"] = "follow_events"
    logs: bool = True
    node: str | None = None
    """Only the log lines of this node."""
    level: LogLevel = "stdout"


class AcknowledgeResult(RunnerMessage):
    """The result is stored elsewhere: the runner may remove its directory and end."""

    kind: Literal["acknowledge_result"] = "acknowledge_result"


class ShutDown(RunnerMessage):
    """End the nodes, but not their dataflow: no result is kept, and other machines hear nothing, as
    if the power had gone. Whoever asks for this means to spawn the part again.
    """

    kind: Literal["shut_down"] = "shut_down"
    grace: float | None = None
    """Seconds from STOP to SIGTERM; ``None``: kill at once."""


RunnerRequest = Annotated[
    Handshake
    | GetStatus
    | GetStatistics
    | Release
    | SetLinkPeers
    | SetLinks
    | StopAllNodes
    | StopNode
    | RestartNode
    | AddNode
    | RemoveNode
    | ReplaceNode
    | ConnectInput
    | DisconnectInput
    | SetParam
    | DeleteParam
    | GetParams
    | Publish
    | Reload
    | FollowEvents
    | AcknowledgeResult
    | ShutDown,
    Field(discriminator="kind"),
]

# ----------------------------------------------------------------------------------- replies


class Done(RunnerMessage):
    kind: Literal["done"] = "done"
    warnings: tuple[str, ...] = ()


class Refusal(RunnerMessage):
    """The request failed; ``message`` says what, where, and what to do."""

    kind: Literal["refusal"] = "refusal"
    message: str


class HandshakeReply(RunnerMessage):
    kind: Literal["greeting"] = "greeting"
    protocol: tuple[int, int] = RUNNER_PROTOCOL
    version: str
    dataflow_id: str
    name: str | None = None
    pid: int


NodeState = Literal[
    "Starting", "Running", "Restarting", "Degraded", "Stopping", "Finished", "Failed", "Stopped"
]
"""``Degraded``: an input timed out. ``Stopped``: by hand, or dynamic and not attached."""


class NodeStatus(RunnerMessage):
    """One node as ``node list`` and ``top`` show it."""

    node: str
    state: NodeState
    pid: int | None = None
    incarnation: int = 0
    restarts: int = 0
    last_restart: str | None = None
    """Its cause in a few words."""
    last_restart_ago: float | None = None
    """Seconds."""
    dynamic: bool = False
    broken_inputs: tuple[str, ...] = ()
    blocked_on: str | None = None
    """``node/input`` whose full backpressure queue this node waits for."""
    cpu_percent: float | None = None
    """Of one core, over the last two seconds, the node's children included."""
    memory_bytes: int | None = None
    """Resident set of the node and its children."""
    read_bytes: int | None = None
    written_bytes: int | None = None
    queued: int = 0
    """Messages waiting at all inputs."""
    health_kills: int = 0
    input_timeouts: int = 0
    input_recoveries: int = 0
    error: str | None = None


class RunnerStatus(RunnerMessage):
    kind: Literal["status"] = "status"
    dataflow_id: str
    name: str | None = None
    phase: Literal["starting", "ready", "running", "stopping", "finished"]
    nodes: tuple[NodeStatus, ...] = ()
    result: DataflowResult | None = None
    started_at: float | None = None
    """Unix time at which the start barrier opened."""
    lines_shed: int = 0
    link: LinkReport | None = None
    """``None``: no edge leaves or enters this machine."""
    only_virtual_left: bool = False
    """As :class:`WaitingChanged` told it last."""
    version: str = ""
    """Of the runner, which outlives upgrades; empty: older than 0.1.0."""


class EdgeStatus(RunnerMessage):
    """Counters of one edge since the dataflow began. ``sent = received + dropped + queued``.

    Of an edge between two machines the producer's end shows what goes to the link, once for each
    output and machine, and the consumer's end what the link hands to the input.
    """

    source: str
    """``node/output``."""
    target: str
    """``node/input``; on its way to another machine ``MACHINE (link)``."""
    crossing: LinkCounters | None = None
    """Of an edge that leaves or enters this machine."""
    policy: str
    bound: int
    sent: int = 0
    received: int = 0
    dropped: int = 0
    queued: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    blocked: bool = False
    idle_seconds: float | None = None
    """Since the last message arrived."""
    latency_us: dict[str, float] = Field(default_factory=dict)
    """``p50``, ``p99`` and ``max``, in microseconds."""


class Statistics(RunnerMessage):
    kind: Literal["statistics"] = "statistics"
    edges: tuple[EdgeStatus, ...] = ()


class Params(RunnerMessage):
    kind: Literal["params"] = "params"
    values: dict[str, Any] = Field(default_factory=dict)


RunnerReply = Annotated[
    Done | Refusal | HandshakeReply | RunnerStatus | Statistics | Params,
    Field(discriminator="kind"),
]

# ---------------------------------------------------------------------------------- the wire


class RunnerProtocolError(Exception):
    """A line on the control socket that is no message; ``str()`` says why."""


class Envelope(RunnerMessage):
    """One line: exactly one of ``request``, ``reply`` and ``notice`` is set."""

    id: int | None = None
    request: RunnerRequest | None = None
    reply: RunnerReply | None = None
    notice: RunnerEvent | None = None


class UnknownMessage(RunnerMessage):
    """A well-formed line whose request or notice this version does not know."""

    id: int | None = None
    part: Literal["request", "reply", "notice"]
    name: str
    problem: str


def encode_line(envelope: Envelope) -> bytes:
    """One envelope as a line of JSON, newline included."""
    return envelope.model_dump_json(exclude_none=True).encode() + b"\n"


def request_line(number: int, request: RunnerRequest) -> bytes:
    """The line that carries ``request`` under ``number``, which the reply repeats."""
    return encode_line(Envelope(id=number, request=request))


class LineDecoder:
    """Sans-IO: bytes of the control socket in, envelopes out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Envelope | UnknownMessage]:
        """Yield each message that ``data`` completes; raises RunnerProtocolError on garbage."""
        self._buffer += data
        while (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            if line.strip():
                yield decode_line(line)
        if len(self._buffer) > MAX_LINE:
            raise RunnerProtocolError(
                f"a message of more than {MAX_LINE} bytes without an end; closing the connection"
            )


def decode_line(line: bytes) -> Envelope | UnknownMessage:
    """One line as an envelope; raises :class:`RunnerProtocolError` if it is no JSON object."""
    try:
        envelope = Envelope.model_validate_json(line)
        if envelope.request is None and envelope.reply is None and envelope.notice is None:
            raise RunnerProtocolError(f"expected a request, a reply or a notice: {line[:80]!r}")
        return envelope
    except ValidationError as error:
        problem = error
    try:
        raw = json.loads(line)
    except ValueError as error:
        raise RunnerProtocolError(f"not a line of JSON: {line[:80]!r} ({error})") from error
    if not isinstance(raw, dict):
        raise RunnerProtocolError(f"expected a JSON object, found {line[:80]!r}")
    number = raw.get("id") if isinstance(raw.get("id"), int) else None
    for part in ("request", "reply", "notice"):
        body = raw.get(part)
        if isinstance(body, dict):
            first = problem.errors(include_url=False)[0]
            where = ".".join(str(item) for item in first["loc"])
            return UnknownMessage(
                id=number,
                part=part,
                name=str(body.get("kind")),
                problem=f"{where}: {first['msg']}",
            )
    raise RunnerProtocolError(f"expected one of request, reply, notice; found keys {sorted(raw)}")


__all__ = [
    "LOG_LEVELS",
    "MAX_LINE",
    "RUNNER_PROTOCOL",
    "AcknowledgeResult",
    "AddNode",
    "ConnectInput",
    "DataflowFinished",
    "DataflowResult",
    "DataflowStarted",
    "DataflowStopping",
    "DeleteParam",
    "DisconnectInput",
    "Done",
    "EdgeStatus",
    "Envelope",
    "FollowEvents",
    "GetParams",
    "GetStatistics",
    "GetStatus",
    "Handshake",
    "HandshakeReply",
    "LineDecoder",
    "LinkChanged",
    "LinkCounters",
    "LogLevel",
    "LogLine",
    "LogLinesDropped",
    "LogSettings",
    "NodeConnected",
    "NodeEnded",
    "NodeFailed",
    "NodeLocation",
    "NodeRestarting",
    "NodeResult",
    "NodeSpawned",
    "NodeState",
    "NodeStatus",
    "NodesReady",
    "Params",
    "Publish",
    "Refusal",
    "Release",
    "Reload",
    "RemoveNode",
    "ReplaceNode",
    "RestartNode",
    "RunPlan",
    "RunnerEvent",
    "RunnerMessage",
    "RunnerProtocolError",
    "RunnerReply",
    "RunnerRequest",
    "RunnerStatus",
    "SetLinkPeers",
    "SetLinks",
    "SetParam",
    "ShutDown",
    "Statistics",
    "StopAllNodes",
    "StopNode",
    "UnknownMessage",
    "WaitingChanged",
    "decode_line",
    "encode_line",
    "request_line",
]
