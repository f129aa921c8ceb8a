"""Links between the parts of one dataflow: edges, endpoints of peers, state; pure.

A *machine* is the key of a daemon in the coordinator: its machine id, or ``default-`` and a few
digits. Several daemons on one computer are several machines.
"""

from __future__ import annotations

from typing import Final

from pydantic import Field

from dora_config.dataflow.resolved import QueueSettings
from dora_config.frozen import Count, Frozen
from dora_config.protocol.states import PeerState as PeerState

FIRST_PORT: Final = 7450
"""First port on which links try to listen."""
LAST_PORT: Final = 7549
"""Default range of ports for links; each dataflow uses one port per machine."""


LINK_VERSION: Final = (1, 0)
"""Major and minor of the frames between two links, which are in `dora_daemon`. The head of a frame,
the keys and `LinkIdentity` never change, so that links of different versions can name each other's.
"""
LINK_PROTOCOL: Final = "link protocol"
"""Part of each error about links with incompatible versions; identifies such errors."""
LINKS_SETTING: Final = "links:"
"""Part of each error about machines with different `links`; identifies such errors."""


def link_versions_fit(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Return whether two links work together: their minor versions are equal or neighbours."""
    return one[0] == other[0] and abs(one[1] - other[1]) <= 1


class RemoteEdge(QueueSettings):
    """One edge between two machines; ``output`` and ``input`` as in the dataflow file."""

    source: str
    """Node id of the producer."""
    output: str
    target: str
    """Node id of the consumer."""
    input: str
    source_machine: str
    target_machine: str
    cycles: tuple[tuple[str, ...], ...] = ()
    """Backpressure cycles that contain this edge, as node ids."""

    def peer_of(self, machine: str) -> str:
        """Return the machine at the other end."""
        return self.target_machine if self.source_machine == machine else self.source_machine


class LinkPlan(Frozen):
    """Configuration of the link of one part; the peers' endpoints are sent later."""

    machine: str
    """Machine of this link."""
    network: str = "dora"
    """Part of the Zenoh keys; always this value, because the dataflow's UUID is unique."""
    run_id: str
    """New with each runner; a restarted link process keeps it. A later run of a part has a run id
    that sorts after those of the earlier ones."""
    listen_host: str
    """Address of this machine to listen on."""
    port: int | None = None
    """Port of the part's previous link, tried first because the peers have this address."""
    first_port: int = Field(default=FIRST_PORT, ge=1, le=65535)
    last_port: int = Field(default=LAST_PORT, ge=1, le=65535)
    edges: tuple[RemoteEdge, ...]
    """Edges that leave or enter this machine."""
    plain: bool = False
    """`links: plain`: without TLS, because the network is encrypted already."""
    names: dict[str, str] = Field(default_factory=dict)
    """Common names in the certificates of the machines at the other ends."""

    @property
    def peers(self) -> tuple[str, ...]:
        """Return the machines at the other ends, sorted."""
        return tuple(sorted({edge.peer_of(self.machine) for edge in self.edges}))


class PeerEndpoint(Frozen):
    """Addresses at which one run of a peer listens."""

    machine: str
    run_id: str
    endpoints: tuple[str, ...]
    """``HOST:PORT``, IPv6 in brackets."""
    plain: bool = False
    """Whether the peer listens without TLS."""
    name: str = ""
    """Common name in its certificate; empty: not known yet."""


class PeerReport(Frozen):
    """State of the link to one peer."""

    machine: str
    run_id: str | None = None
    """Run of the peer to which this refers."""
    state: PeerState = "connecting"
    reason: str | None = None
    """Last attempt and its error, if ``connecting`` or ``lost``."""
    endpoint: str | None = None
    """Endpoint of the peer that is connected or was last tried."""
    slow: bool = False
    """Connections are established but take long, so waiting may help."""
    rtt_us: Count | None = None
    """Median round trip in microseconds."""
    clock_offset_us: Count | None = None
    """Peer's wall clock minus local clock in microseconds; accurate to half the round trip."""


class LinkReport(Frozen):
    """State of the link of one part; replaces the previous report."""

    run_id: str = ""
    endpoints: tuple[str, ...] = ()
    """Addresses at which the link listens; empty until it listens."""
    plain: bool = False
    """Whether the link listens without TLS."""
    problem: str | None = None
    """Why the link cannot listen, as a sentence (no free port...)."""
    peers: tuple[PeerReport, ...] = ()

    def without_figures(self) -> LinkReport:
        """Return the report without round trip times, which heartbeats contain."""
        figures = {"rtt_us": None, "clock_offset_us": None}
        peers = tuple(peer.model_copy(update=figures) for peer in self.peers)
        return self.model_copy(update={"peers": peers})


class SetLinkPeers(Frozen, kind="set_link_peers"):
    """Add or change endpoints of peers; the runner keeps those that are not listed."""

    peers: tuple[PeerEndpoint, ...] = ()
    ended: tuple[str, ...] = ()
    """Machines whose part has ended: messages to them are dropped and inputs from them closed."""


class SetLinks(Frozen, kind="set_links"):
    """Replace all edges to and from other machines, for changes while the dataflow runs.

    An edge must be listed here before ``ConnectInput`` or ``AddNode`` connects its input.
    """

    links: LinkPlan
    credentials: str | None = None


class LinkCounters(Frozen):
    """Counters of the link for one output between two machines."""

    machine: str
    """The machine at the other end."""
    messages: Count = 0
    """Sent or received by this end."""
    lost: Count = 0
    """Lost between the machines; not counted in any queue."""
    waiting: Count = 0
    """Sent and not acknowledged, or received and not yet in a queue."""
    resent: Count = 0
    invalid: Count = 0
    """Dropped because validation of their contents failed."""
    raw_bytes: Count = 0
    """Bytes of the messages that were sent, before `compress:`; counted by the sending end only."""
    wire_bytes: Count = 0
    """Bytes of the messages between the machines, without acknowledgements and repetitions."""
    uncompressed: str = ""
    """Why the last message was sent as it is although its readers name a codec, as a sentence."""
