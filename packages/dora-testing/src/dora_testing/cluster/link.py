"""Simulated link process of a fleet."""

from __future__ import annotations

from dataclasses import dataclass, field

from dora_config.protocol.links import (
    LinkReport,
    PeerEndpoint,
    PeerReport,
    RemoteEdge,
    SetLinkPeers,
)

Wall = frozenset[str]
"""Two machines whose links cannot reach each other."""


@dataclass
class SimulatedLink:
    machine: str
    run_id: str
    edges: tuple[RemoteEdge, ...]
    endpoint: str | None = None
    problem: str | None = None
    slow: bool = False
    """Whether connections succeed but take long."""
    known: dict[str, PeerEndpoint] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    peers: dict[str, PeerReport] = field(default_factory=dict)

    @property
    def peer_names(self) -> set[str]:
        return {edge.peer_of(self.machine) for edge in self.edges}

    def set_peers(self, request: SetLinkPeers) -> None:
        self.known |= {peer.machine: peer for peer in request.peers}
        self.ended |= set(request.ended)

    def report(self) -> LinkReport:
        return LinkReport(
            run_id=self.run_id,
            endpoints=(self.endpoint,) if self.endpoint else (),
            problem=self.problem,
            peers=tuple(self.peers[name] for name in sorted(self.peers)),
        )

    def try_peers(self, others: list[SimulatedLink], walls: set[Wall]) -> bool:
        """Try to reach every known peer; return whether a report has changed."""
        before = dict(self.peers)
        for peer in self.known.values():
            self.peers[peer.machine] = self._try_peer(peer, others, walls)
        return self.peers != before

    def _try_peer(
        self, peer: PeerEndpoint, others: list[SimulatedLink], walls: set[Wall]
    ) -> PeerReport:
        earlier = self.peers.get(peer.machine)
        connected = any(
            self._reaches(other, walls) for other in others if other.machine == peer.machine
        )
        same_run = earlier is not None and earlier.run_id == peer.run_id
        lost = same_run and earlier is not None and earlier.state in ("connected", "lost")
        return PeerReport(
            machine=peer.machine,
            run_id=peer.run_id,
            state="connected" if connected else "lost" if lost else "connecting",
            reason=None if connected else "no answer",
            endpoint=peer.endpoints[0],
            slow=self.slow,
        )

    def _reaches(self, other: SimulatedLink, walls: set[Wall]) -> bool:
        """Return whether both have the other's run id, and one of them the other's address."""
        mine, theirs = self.known.get(other.machine), other.known.get(self.machine)
        if mine is None or theirs is None or Wall((self.machine, other.machine)) in walls:
            return False
        same_runs = mine.run_id == other.run_id and theirs.run_id == self.run_id
        dialled = other.endpoint in mine.endpoints or self.endpoint in theirs.endpoints
        return same_runs and dialled and other.endpoint is not None and self.endpoint is not None
