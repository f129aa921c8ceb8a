"""All parts of one dataflow: counted by state, linked to each other, marked when changed; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.runner import DataflowResult
from dora_coordinator.commands import SendToDaemon
from dora_coordinator.dataflow.linking import Links, remote_edges
from dora_coordinator.dataflow.part import Part
from dora_coordinator.membership import Membership
from dora_coordinator.records import DataflowRecord, PartState


class Parts(Mapping[str, Part]):
    """By daemon; their states change through :meth:`move` and :meth:`end` only."""

    def __init__(self, record: DataflowRecord, spec: DataflowSpec) -> None:
        self._by_daemon = {
            part.daemon: Part(
                record.dataflow_id, part.daemon, part.nodes, part.state, part.attempt, part.result
            )
            for part in record.parts
        }
        self._count = Counter(part.state for part in self._by_daemon.values())
        """So that no event needs a look at all of them."""
        self._changed: set[str] = set()
        self._nodes = {node.id: node for node in spec.resolved.nodes}
        by_node = {node: part.daemon for part in record.parts for node in part.nodes}
        self.links = Links(remote_edges(spec.resolved, by_node))
        for part in self._by_daemon.values():
            if part.ended:
                self.links.end(part.daemon)

    def __getitem__(self, daemon: str) -> Part:
        return self._by_daemon[daemon]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_daemon)

    def __len__(self) -> int:
        return len(self._by_daemon)

    # --------------------------------------------------------------------- changes

    def move(self, part: Part, state: PartState) -> None:
        self._count[part.state] -= 1
        self._count[state] += 1
        part.state = state

    def end(self, part: Part, result: DataflowResult | None) -> None:
        """It has ended for good; a result that is known already stays."""
        if part.ended and part.result is not None:
            return
        self.mark(part)
        self.move(part, PartState.ENDED)
        part.result = result
        self.links.end(part.daemon)

    def mark(self, part: Part) -> None:
        """It must be stored anew."""
        self._changed.add(part.daemon)

    def unmark(self) -> None:
        """All is stored."""
        self._changed.clear()

    # ----------------------------------------------------------------------- views

    def marked(self) -> list[Part]:
        return [self[daemon] for daemon in sorted(self._changed)]

    def left(self) -> list[Part]:
        """Those that have not ended."""
        return [part for part in self.values() if not part.ended]

    @property
    def all_prepared(self) -> bool:
        return self._count[PartState.PREPARED] == len(self)

    @property
    def all_ended(self) -> bool:
        return self._count[PartState.ENDED] == len(self)

    @property
    def all_settled(self) -> bool:
        """Whether none is on its way any more."""
        return self._count[PartState.RUNNING] + self._count[PartState.ENDED] == len(self)

    # -------------------------------------------------------------------- messages

    def prepare(self, part: Part, spec: DataflowSpec, membership: Membership) -> SendToDaemon:
        """Spawn its nodes; ``spec``: of the whole dataflow, as it is now."""
        own = spec.with_nodes(tuple(self._nodes[node] for node in part.nodes))
        addresses = {}
        for peer in self.links.peers_of(part.daemon):
            member = membership.get(peer)
            if member is not None:
                addresses[peer] = member.address.rpartition(":")[0].strip("[]")
        edges = self.links.edges_of(part.daemon)
        return part.prepare(own, edges, addresses, whole=len(self) == 1)

    def connect(self, part: Part) -> SendToDaemon:
        """Tell it where its peers listen."""
        endpoints = self.links.endpoints_for(part.daemon)
        return part.connect(endpoints, self.links.ended_peers_of(part.daemon))

    def tell_peers_where(self, part: Part) -> list[SendToDaemon]:
        """Tell those that it is linked to where it listens."""
        endpoint = self.links.endpoint(part.daemon)
        return [] if endpoint is None else [peer.connect((endpoint,)) for peer in self._peers(part)]

    def tell_peers_of_end(self, part: Part) -> list[SendToDaemon]:
        """Tell those that it was linked to that they need not wait for it."""
        return [peer.connect(ended=(part.daemon,)) for peer in self._peers(part)]

    def _peers(self, part: Part) -> list[Part]:
        peers = (self[peer] for peer in self.links.peers_of(part.daemon))
        return [peer for peer in peers if not peer.ended]
