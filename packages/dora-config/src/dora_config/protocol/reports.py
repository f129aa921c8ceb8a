"""Reports of the coordinator about dataflows, nodes, machines and the fleet, and requests for them.

These need no messages about the content of dataflows, so that commands such as `dora list` start
quickly. No I/O.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dora_config.frozen import UnixTime
from dora_config.protocol.claims import Claim
from dora_config.protocol.envelope import Message, ProgramVersion, Query, Request
from dora_config.protocol.states import NodeResult, NodeStatus, PeerState


class LinkSummary(Message):
    """Link between two machines of one dataflow, as reported by one of them."""

    dataflow: str
    machine: str
    peer: str
    state: PeerState
    reason: str | None = None
    endpoint: str | None = None
    """``HOST:PORT`` of the peer."""
    rtt_us: int | None = None
    clock_offset_us: int | None = None


class NodeSummary(NodeStatus):
    """One node with its dataflow and machine, as clients get it."""

    dataflow: str
    dataflow_name: str | None = None
    daemon: str


class NodeList(Message, kind="nodes"):
    nodes: tuple[NodeSummary, ...] = ()


DataflowStatus = Literal[
    "Starting", "Running", "Recovering", "Degraded", "Stopping", "Finished", "Failed"
]


class RestartSummary(Message):
    """Last restart of a node, or last recovery of the nodes of a machine."""

    cause: str
    ago: float
    """Seconds."""
    node: str | None = None
    daemon: str | None = None


class DataflowSummary(Message):
    """One dataflow in the output of ``dora list``."""

    uuid: str
    name: str | None = None
    status: DataflowStatus
    reason: str | None = None
    """Why the dataflow failed, is degraded or is recovering."""
    ended_ago: float | None = None
    """Seconds since the end of the dataflow."""
    restarts: int = 0
    """Restarts of its nodes since their part was last started."""
    last_restart: RestartSummary | None = None
    recoveries: int = 0
    """Number of times that all nodes of a machine were started again."""
    last_recovery: RestartSummary | None = None
    nodes: int = 0
    daemons: tuple[str, ...] = ()
    cpu: float = 0.0
    """Per cent of one core."""
    memory: int = 0
    """Bytes."""
    links: tuple[LinkSummary, ...] = ()
    """Links between its machines; one entry from each end."""


class DataflowList(Message, kind="dataflows"):
    dataflows: tuple[DataflowSummary, ...] = ()


class EndedDataflow(Message):
    """End of one dataflow."""

    uuid: str
    name: str | None = None
    ok: bool
    reason: str | None = None
    """Why the dataflow failed as a whole (not prepared, machine lost...)."""
    nodes: tuple[NodeResult, ...] = ()
    """Results in the order in which the nodes ended, over all daemons."""


class Ended(Message, kind="ended"):
    dataflows: tuple[EndedDataflow, ...] = ()


class Restarted(Message, kind="restarted"):
    old: str
    new: str
    warnings: tuple[str, ...] = ()


class DaemonSummary(Message):
    """One daemon in the output of ``dora cluster status``."""

    daemon: str
    machine_id: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    address: str = ""
    release: str = ""
    connected: bool = True
    ended: bool = False
    """Whether the daemon ended normally and is not connected."""
    heartbeat_age: float = 0.0
    """Seconds since the last heartbeat."""
    clock_offset: float | None = None
    """Seconds by which the machine's clock is ahead of the coordinator's."""
    runners: tuple[str, ...] = ()
    """Versions of the runners on that machine; runners survive upgrades of the daemon."""
    restarts: int = 0
    health_kills: int = 0
    input_timeouts: int = 0
    input_recoveries: int = 0
    plain_links: bool = False
    """Whether links of the machine are not encrypted (`links: plain`)."""
    links: tuple[LinkSummary, ...] = ()
    """Links of the dataflows on that machine, as reported by it."""


class StandbyReport(Message):
    """A machine that keeps a copy of the coordinator's state."""

    machine: str
    address: str
    """Address of the coordinator if this machine takes over."""
    number: int | None = None
    """Number of changes in the copy; None: this coordinator has not sent one yet."""
    age: float | None = None
    """Seconds since the machine confirmed it."""
    current: bool = False
    """Whether the copy has all changes."""
    problem: str | None = None
    """Why the machine could not keep the last copy."""


class ClusterReport(Message, kind="cluster"):
    """The coordinator, its machines, and the number of dataflows that have not ended."""

    coordinator: ProgramVersion
    machines: tuple[DaemonSummary, ...] = ()
    active_dataflows: int = 0
    differences: tuple[str, ...] = ()
    """Differences between reports and the coordinator's records, with the command that helps."""
    claim: Claim | None = None
    """Claim of the answering coordinator."""
    standbys: tuple[StandbyReport, ...] = ()


CopyState = Literal[
    "current",
    "off",
    "waiting",
    "changing",
    "checking",
    "unready",
    "by hand",
    "failed",
    "ended",
    "paused",
]


class ObservedCopy(Message):
    """One dataflow or copy: the generation that it should run, and its state."""

    name: str
    machine: str | None = None
    desired: int | None = None
    """Desired generation; None: the copy is to be stopped."""
    observed: int | None = None
    """The generation that runs, or ran last; None: it never ran."""
    state: CopyState
    detail: str = ""
    held: tuple[str, ...] = ()
    """Nodes that hold updates, each with its reason."""


class FleetReport(Message, kind="fleet"):
    """State of the fleet; generation 0: nothing was applied."""

    generation: int = 0
    by: str = ""
    at: UnixTime = 0.0
    outcome: str = ""
    paused: str | None = None
    settled: bool = True
    """The roll-out has ended or is paused; machines that are off may still follow."""
    batch: int = 0
    """Batches that have begun, of ``batches``; 0 of 0 without a roll-out."""
    batches: int = 0
    waits_for: str = ""
    """Machines that the next batch waits for."""
    copies: tuple[ObservedCopy, ...] = ()


class ListDataflows(Message, Query[DataflowList], kind="list"):
    """List dataflows."""


class ListNodes(Message, Query[NodeList], kind="nodes"):
    """List nodes, by default of all running dataflows."""

    dataflow: str | None = None


class ClusterStatus(Message, Query[ClusterReport], kind="status"):
    """Get the state of all daemons."""


class GetFleet(Message, Query[FleetReport], kind="get_fleet"):
    """Get the desired and the observed state of the fleet."""


class StopDataflow(Message, Request[Ended], kind="stop"):
    """Stop a dataflow and wait for its end."""

    dataflow: str | None = None
    all: bool = False
    grace: float | None = None
    force: bool = False


class RestartDataflow(Message, Request[Restarted], kind="restart"):
    """Stop a dataflow and start its stored specification."""

    dataflow: str | None = None
    grace: float | None = None
    force: bool = False


class ForgetEnded(Message, Request[DataflowList], kind="clean"):
    """Forget ended dataflows."""
