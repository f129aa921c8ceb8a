"""Messages on the control socket of a runner; no I/O.

A runner supervises the nodes of one dataflow on one machine, as described by a :class:`RunPlan`. It
answers :data:`RunnerRequest` and sends :data:`RunnerEvent` as notices.

A message is one line of JSON: ``{"id": 3, "request": {...}}``, ``{"id": 3, "reply": {...}}`` or
``{"notice": {...}}``. A runner survives the daemon that started it, so neighbouring minor versions
are compatible: unknown fields are ignored, every added field has a default, requests of unknown
kinds are answered with :class:`Refusal`, and notices of unknown kinds are skipped.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError

from dora_config.dataflow.resolved import (
    CurrentNode as CurrentNode,
    NodeLocation as NodeLocation,
    QueueSettings,
)
from dora_config.frozen import Count, Frozen, Quantity, first_problem
from dora_config.history.entries import HistoryEntry
from dora_config.protocol.holds import HOLD_LIMIT
from dora_config.protocol.links import (
    LinkCounters,
    SetLinkPeers as SetLinkPeers,
    SetLinks as SetLinks,
)
from dora_config.protocol.run_plan import RunPlan as RunPlan
from dora_config.protocol.runner_events import (
    DataflowResult as DataflowResult,
    NodeResult as NodeResult,
    RunnerEvent as RunnerEvent,
    RunnerState as RunnerState,
)
from dora_config.protocol.states import NodeStatus as NodeStatus, ShownState as ShownState

RUNNER_PROTOCOL: Final = (1, 0)
"""Major and minor version of these messages."""

MAX_LINE: Final = 64 * 1024 * 1024
"""Largest size of one message in bytes."""

# ---------------------------------------------------------------------------------- requests


class Handshake(Frozen, kind="handshake"):
    """First request on a connection; answered with :class:`HandshakeReply` or :class:`Refusal`.

    These three never change, so that any two versions can refuse each other. After the reply, each
    event but log lines follows as a notice.
    """

    protocol: tuple[int, int] = RUNNER_PROTOCOL
    release: str = ""
    """Version of the daemon."""


class GetStatus(Frozen, kind="get_status"):
    """Get the state of all nodes; answered with :class:`RunnerStatus`."""


class GetStatistics(Frozen, kind="get_statistics"):
    """Get the counters of all edges that end here; answered with :class:`Statistics`."""


class GetHistory(Frozen, kind="get_history"):
    """Get the events that are kept, and the present state; answered with :class:`RunnerHistory`."""


class Release(Frozen, kind="release"):
    """Open the start barrier (see ``RunPlan.hold_at_barrier``); idempotent."""


class StopAllNodes(Frozen, kind="stop_dataflow"):
    """Stop all nodes, by default with the plan's grace; answered when the stop has begun."""

    grace: float | None = None
    force: bool = False
    reason: str = "stop requested"


class Holdable(Frozen):
    """A change of one node, which waits while the node holds updates."""

    hold_limit: float = HOLD_LIMIT
    """Seconds to wait while the node holds updates."""
    force: bool = False
    """Do not wait."""


class StopNode(Holdable, kind="stop_node"):
    """Stop one node without restart; answered when it has ended."""

    node: str
    grace: float = 10.0


class RestartNode(Holdable, kind="restart_node"):
    """Restart one node regardless of its policy; answered when the new process runs."""

    node: str
    grace: float = 5.0


class AddNode(CurrentNode, kind="add_node"):
    """Add a node to the running dataflow; answered when it has connected, or after a while."""


class RemoveNode(Holdable, kind="remove_node"):
    """Stop a node and remove its edges; answered when it has ended."""

    node: str
    grace: float = 10.0


class ReplaceNode(CurrentNode, Holdable, kind="replace_node"):
    """Run another program under a node's id and inputs; the new process starts first."""

    grace: float = 10.0


class EdgeChange(Frozen):
    """The edge ``source/output -> target/input``.

    Timers and logs have the source ``dora``, as in a dataflow file.
    """

    source: str
    output: str
    target: str
    input: str


class HoldNode(Frozen, kind="hold_node"):
    """Hold updates of a node for an operator; empty ``reason``: release them."""

    node: str
    reason: str = ""


class ConnectInput(EdgeChange, QueueSettings, kind="connect_input"):
    """Add an edge."""


class DisconnectInput(EdgeChange, kind="disconnect_input"):
    """Remove an edge."""


class GetNodes(Frozen, kind="get_nodes"):
    """Get all nodes with their parameters; answered with :class:`NodeDefinitions`."""


class SetParam(Frozen, kind="set_param"):
    """Store a parameter of a node (any JSON value) and notify the node."""

    node: str
    key: str
    value: Any = None


class DeleteParam(Frozen, kind="delete_param"):
    node: str
    key: str


class GetParams(Frozen, kind="get_params"):
    """Get the parameters of a node; answered with :class:`Params`."""

    node: str


class GetDetails(Frozen, kind="get_details"):
    """Get the last report of a node about itself; answered with :class:`NodeDetails`."""

    node: str


class Publish(Frozen, kind="publish"):
    """Send one message on ``output`` in place of ``node``."""

    node: str
    output: str
    data: Any = None
    """A JSON value; a list becomes an Arrow array, any other value an array of length one."""
    metadata: dict[str, Any] = Field(default_factory=dict)


class ReloadCode(Holdable, kind="reload"):
    """Reload an operator of a node; ``None``: all operators."""

    node: str
    operator: str | None = None


class AcknowledgeResult(Frozen, kind="acknowledge_result"):
    """The result is stored elsewhere, so the runner may remove its directory and end."""


class ShutDown(Frozen, kind="shut_down"):
    """End the nodes as if the machine had lost power: no result is stored and peers are not
    notified. Sent before the part is spawned again.
    """

    grace: float | None = None
    """Seconds from STOP to SIGTERM; ``None``: SIGKILL at once."""


GraphChange = Annotated[
    AddNode | RemoveNode | ReplaceNode | ConnectInput | DisconnectInput,
    Field(discriminator="kind"),
]
"""Requests that change the nodes or edges of a running dataflow."""

RunnerRequest = Annotated[
    Handshake
    | GetStatus
    | GetStatistics
    | GetHistory
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
    | GetNodes
    | HoldNode
    | SetParam
    | DeleteParam
    | GetParams
    | GetDetails
    | Publish
    | ReloadCode
    | AcknowledgeResult
    | ShutDown,
    Field(discriminator="kind"),
]

# ----------------------------------------------------------------------------------- replies


class Done(Frozen, kind="done"):
    warnings: tuple[str, ...] = ()


class Refusal(Frozen, kind="refusal"):
    """The request failed; ``message`` contains what failed, where, and the remedy."""

    message: str
    ended: bool = False
    """The nodes of this machine have ended, or are being stopped; the runner ends after them."""


class HandshakeReply(Frozen, kind="handshake_reply"):
    protocol: tuple[int, int] = RUNNER_PROTOCOL
    version: str
    dataflow_id: str
    name: str | None = None
    pid: int


class RunnerStatus(Frozen, kind="status"):
    dataflow_id: str
    name: str | None = None
    state: RunnerState
    nodes: tuple[NodeStatus, ...] = ()
    version: str = ""
    """Version of the runner, which survives upgrades."""


LatencyCounts = tuple[tuple[Count, Count], ...]
"""Numbers of messages by latency: upper bound of each bucket in nanoseconds, and count; ascending,
without empty buckets. Buckets are a quarter of a power of two wide."""


def quantile(counts: LatencyCounts, fraction: float) -> float | None:
    """Return the seconds below which ``fraction`` of the latencies are, exact to a bucket (25 %).

    ``None`` without messages.
    """
    total = sum(count for _, count in counts)
    seen = 0
    for bound, count in counts:
        seen += count
        if seen >= fraction * total and seen > 0:
            return bound / 1e9
    return None


class EdgeCounters(Frozen):
    """Counters of one edge since it was created."""

    source: str
    """``node/output``."""
    target: str
    """``node/input``; at the producer's end of a link ``MACHINE (link)``."""
    policy: str
    bound: Count = 0
    """Capacity of the queue."""
    sent: Count = 0
    received: Count = 0
    dropped: Count = 0
    """Dropped by full queues."""
    unmatched: Count = 0
    """Received messages that were in no sample of `Node.joined`."""
    recent_sent: Count = 0
    """Messages sent in the last full interval of `RECENT_SECONDS`."""
    recent_dropped: Count = 0
    queued: Count = 0
    blocked: bool = False
    """The source waits for a full queue."""
    idle_seconds: Quantity | None = None
    """Seconds since the last message arrived."""


class EdgeStatus(EdgeCounters):
    """An edge, or one end of it. ``sent = received + dropped + queued``.

    For an edge between two machines, the producer's end counts messages into the link, once per
    output and machine; the consumer's end counts messages from the link into the input.
    """

    crossing: LinkCounters | None = None
    """Counters of the link, for an edge that leaves or enters this machine."""
    bytes_sent: Count = 0
    bytes_received: Count = 0
    latency_us: dict[str, Quantity] = Field(default_factory=dict)
    """``p50``, ``p99`` and ``max`` in microseconds, as upper bounds of buckets."""
    latency_counts: LatencyCounts = ()


class Statistics(Frozen, kind="statistics"):
    edges: tuple[EdgeStatus, ...] = ()
    at: Quantity = 0.0
    """Time of reading, in seconds of CLOCK_MONOTONIC."""


class NodeDefinitions(Frozen, kind="nodes"):
    revision: int
    nodes: tuple[CurrentNode, ...] = ()
    params: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Parameters by node id and key."""
    stopped: tuple[str, ...] = ()
    """Nodes that an operator has stopped."""


class RunnerHistory(Frozen, kind="history"):
    """Events of this runner and its predecessors, with the present state."""

    entries: tuple[HistoryEntry, ...] = ()
    dropped: int = 0
    """Events between the first and the last ones that were not kept."""
    nodes: tuple[NodeStatus, ...] = ()
    edges: tuple[EdgeStatus, ...] = ()


class Params(Frozen, kind="params"):
    values: dict[str, Any] = Field(default_factory=dict)


class NodeDetails(Frozen, kind="node_details"):
    details: dict[str, Any] | None = None
    """Content that the program of its kind defines; None: the node has not reported any."""


RunnerReply = Annotated[
    Done
    | Refusal
    | HandshakeReply
    | RunnerStatus
    | Statistics
    | RunnerHistory
    | NodeDefinitions
    | Params
    | NodeDetails,
    Field(discriminator="kind"),
]

# ---------------------------------------------------------------------------------- framing


class RunnerProtocolError(Exception):
    """A line on the control socket is not a message; ``str()`` is the reason."""


class Envelope(Frozen):
    """One line: exactly one of ``request``, ``reply`` and ``notice`` is set."""

    id: int | None = None
    request: RunnerRequest | None = None
    reply: RunnerReply | None = None
    notice: RunnerEvent | None = None


class UnknownMessage(Frozen):
    """A well-formed line with a request, reply or notice of an unknown kind."""

    id: int | None = None
    part: Literal["request", "reply", "notice"]
    name: str
    problem: str


def encode_line(envelope: Envelope) -> bytes:
    """Encode an envelope as a line of JSON, including the newline."""
    return envelope.model_dump_json(exclude_none=True).encode() + b"\n"


def request_line(number: int, request: RunnerRequest) -> bytes:
    """Encode a request; the reply repeats ``number``."""
    return encode_line(Envelope(id=number, request=request))


def decode_line(line: bytes) -> Envelope | UnknownMessage:
    """Decode one line; raise `RunnerProtocolError` if it is not a JSON object with a message."""
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
        raise RunnerProtocolError(f"invalid JSON: {line[:80]!r} ({error})") from error
    if not isinstance(raw, dict):
        raise RunnerProtocolError(f"expected a JSON object, found {line[:80]!r}")
    number = raw.get("id") if isinstance(raw.get("id"), int) else None
    for part in ("request", "reply", "notice"):
        body = raw.get(part)
        if isinstance(body, dict):
            name = str(body.get("kind"))
            return UnknownMessage(id=number, part=part, name=name, problem=first_problem(problem))
    raise RunnerProtocolError(f"expected one of request, reply, notice; found keys {sorted(raw)}")
