"""Evidence for the explanation of a dataflow: events, states and counters of all machines; pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dora_config.frozen import Frozen
from dora_config.history.entries import EdgeEnds, HistoryEntry, HistoryEvent
from dora_config.protocol.runner import NodeStatus
from dora_config.protocol.snapshot import EdgeSummary


class MachineEvidence(Frozen):
    """Report of one machine, or the problem that prevented it."""

    machine: str
    """Empty for a run without a coordinator."""
    entries: tuple[HistoryEntry, ...] = ()
    dropped: int = 0
    """Events between the first and the last ones that were not kept."""
    clock_offset: float = 0.0
    """Seconds by which the machine's clock is ahead of the coordinator's."""
    node_ids: tuple[str, ...] = ()
    """Nodes that are placed here."""
    nodes: tuple[NodeStatus, ...] = ()
    """Present states of the nodes; empty: unknown, or the nodes have ended."""
    edges: tuple[EdgeSummary, ...] = ()
    """Edges that end here."""
    connected: bool = True
    silent: float | None = None
    """Seconds since the machine's last message, if that is long."""
    full_disk: str | None = None
    """Folder of the dataflow, if its disk has hardly any space."""
    problem: str | None = None
    """Why the history of the machine is missing, as a sentence."""


class Evidence(Frozen):
    """Input of :func:`dora_config.history.explain.explain`."""

    uuid: str = ""
    name: str | None = None
    status: str
    """Status that ``dora list`` shows."""
    reason: str | None = None
    """The coordinator's reason for the status."""
    ended: bool = False
    now: float
    """Unix time by the coordinator's clock, as all corrected times."""
    entries: tuple[HistoryEntry, ...] = ()
    """Events of the coordinator."""
    dropped: int = 0
    machines: tuple[MachineEvidence, ...] = ()
    edges: tuple[EdgeEnds, ...] = ()
    """All edges between nodes."""
    waits_for: tuple[str, ...] = ()
    """Conditions that the coordinator waits for, as sentences."""
    notes: tuple[str, ...] = ()

    @property
    def machine_of(self) -> dict[str, str]:
        """Return the machine of each node."""
        return {node: one.machine for one in self.machines for node in one.node_ids}

    def has_removed(self, node: str, machine: str | None) -> bool:
        """Return whether a machine reports its nodes, and this one is not part of them.

        It was removed from the running dataflow, or it could not be added to it.
        """
        for one in self.machines:
            if one.machine == machine and one.nodes:
                return node not in one.node_ids and all(node != has.node for has in one.nodes)
        return False

    def runs(self, node: str, machine: str | None) -> bool:
        """Return whether a machine reports that a node runs."""
        nodes = (has for one in self.machines if one.machine == machine for has in one.nodes)
        return any(has.node == node and has.status == "Running" for has in nodes)


@dataclass(frozen=True, slots=True)
class TimedEvent:
    """An event with its corrected time."""

    at: float
    machine: str | None
    """``None``: the coordinator."""
    event: HistoryEvent


def merged(evidence: Evidence) -> list[TimedEvent]:
    """Return the events of the coordinator and of all machines, oldest first.

    The times of a machine are corrected by its clock offset. Events of one machine keep their order
    even if its clock was set back in between.
    """
    sources = [_corrected(None, evidence.entries, 0.0)]
    sources += [_corrected(one.machine, one.entries, one.clock_offset) for one in evidence.machines]
    return list(heapq.merge(*sources, key=lambda event: event.at))


def _corrected(
    machine: str | None, entries: Sequence[HistoryEntry], offset: float
) -> Iterator[TimedEvent]:
    latest = float("-inf")
    for entry in entries:
        latest = max(latest, entry.at - offset)
        yield TimedEvent(latest, machine, entry.event)
