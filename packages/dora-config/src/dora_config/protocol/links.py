"""Links between the parts of one dataflow: which edges cross, where peers listen, how it is; pure.

A *machine* is a daemon as the coordinator knows it: its key (the machine id, or ``default-`` and a
few digits for a daemon without one). Several daemons on one computer are several machines.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from dora_config.dataflow.resolved import MAX_QUEUE_SIZE, QueuePolicy
from dora_config.protocol.runner_message import RunnerMessage

WRONG_CLOCK: Final = "wrong clock"
"""In the reason of a link that fails for a certificate's time: no firewall is to blame."""
FIRST_PORT: Final = 7450
LAST_PORT: Final = 7549
"""Where links listen unless told otherwise: one port for each dataflow and machine."""

NETWORK: Final = "dora"
"""First part of the keys of a cluster."""


class RemoteEdge(RunnerMessage):
    """One edge between two machines; ``output`` and ``input`` as in the dataflow file."""

    source: str
    """Node id of the producer."""
    output: str
    target: str
    """Node id of the consumer."""
    input: str
    queue_size: int = Field(ge=1, le=MAX_QUEUE_SIZE)
    queue_policy: QueuePolicy = "drop_oldest"
    input_timeout: float | None = None
    """Seconds."""
    source_machine: str
    target_machine: str
    cycles: tuple[tuple[str, ...], ...] = ()
    """Those that it lies on, of nodes that can wait for each other's full backpressure queues."""

    def peer_of(self, machine: str) -> str:
        """The other end."""
        return self.target_machine if self.source_machine == machine else self.source_machine


class LinkPlan(RunnerMessage):
    """All that the link of one part needs beside its peers' endpoints (those come later)."""

    machine: str
    """This one."""
    network: str = NETWORK
    run_id: str
    """Names this life of the part: another one each time its runner is started."""
    listen_host: str
    """An address of this machine."""
    first_port: int = Field(default=FIRST_PORT, ge=1, le=65535)
    last_port: int = Field(default=LAST_PORT, ge=1, le=65535)
    edges: tuple[RemoteEdge, ...]
    """Those that leave or enter this machine."""

    @property
    def peers(self) -> tuple[str, ...]:
        """The machines at the other ends, sorted."""
        return tuple(sorted({edge.peer_of(self.machine) for edge in self.edges}))


class PeerEndpoint(RunnerMessage):
    """Where one peer listens, in its present life."""

    machine: str
    run_id: str
    endpoints: tuple[str, ...]
    """``HOST:PORT``, IPv6 in brackets."""


PeerState = Literal["connecting", "proven", "lost", "left"]
"""``proven``: messages went both ways, and both ends name the same streams. ``connecting``: not so
far, in this life of the peer. ``lost``: it was proven; the link keeps trying. ``left``: the peer's
part has ended in good order."""


class PeerReport(RunnerMessage):
    """How the link to one peer is."""

    machine: str
    run_id: str | None = None
    """The peer's life that this is about."""
    state: PeerState = "connecting"
    reason: str | None = None
    """Of ``connecting`` and ``lost``: what was tried and what stands in the way."""
    endpoint: str | None = None
    """The peer's endpoint that is connected, or was tried last."""
    slow: bool = False
    """Connections to it are made, but take long: waiting may help."""
    rtt_us: int | None = None
    """Median round trip in microseconds."""
    clock_offset_us: int | None = None
    """The peer's wall clock minus ours, in microseconds; good to half the round trip."""


class LinkReport(RunnerMessage):
    """How the link of one part is; each report replaces the one before."""

    run_id: str = ""
    endpoints: tuple[str, ...] = ()
    """Where it listens; empty until it does."""
    problem: str | None = None
    """Why it does not listen, as a sentence (no free port...)."""
    peers: tuple[PeerReport, ...] = ()


class SetLinkPeers(RunnerMessage):
    """Where links of other machines listen: those that are new or have moved, the others stay.

    Whoever asks may have just been started and not know all of them; the runner keeps the list.
    """

    kind: Literal["set_link_peers"] = "set_link_peers"
    peers: tuple[PeerEndpoint, ...] = ()
    ended: tuple[str, ...] = ()
    """Machines whose part has ended for good: what waits for them is given up, and what came from
    them is closed.
    """


class SetLinks(RunnerMessage):
    """All edges to and from other machines, in place of those so far; for nodes and edges that come
    and go while the dataflow runs. Before an input is connected to another machine's output, here
    or by ``AddNode``, its edge must be in this list.
    """

    kind: Literal["set_links"] = "set_links"
    links: LinkPlan
    credentials: str | None = None


class LinkCounters(RunnerMessage):
    """Counters of the link for one output on its way between two machines."""

    machine: str
    """The other one."""
    messages: int = 0
    """Sent, or received, by this end."""
    lost: int = 0
    """On the way, for good. They count in no queue."""
    waiting: int = 0
    """Sent and not acknowledged; received and not taken by a queue."""
    resent: int = 0
    invalid: int = 0
    """Dropped because their contents did not pass validation."""
