"""How the parts of one dataflow are linked: who must be told what, and what is amiss; pure.

Two machines that share an edge are a *pair*. A pair is linked when each of the two reports the
other, in its present life, as proven.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dora_config import ResolvedDataflow
from dora_config.dataflow.graph import cycles
from dora_config.dataflow.sources import LogSource, OutputSource
from dora_config.protocol.links import (
    WRONG_CLOCK,
    LinkReport,
    PeerEndpoint,
    PeerReport,
    RemoteEdge,
)
from dora_coordinator.commands import Command, Log

ADVICE = (
    "open one of these TCP ports in the firewall of its machine, or have the daemon listen on "
    "another address with --zenoh-listen"
)

Pair = tuple[str, str]
"""Keys of two daemons, sorted."""


def remote_edges(
    dataflow: ResolvedDataflow, by_node: Mapping[str, str]
) -> dict[str, tuple[RemoteEdge, ...]]:
    """The edges between daemons, by each daemon at one of their ends; ``by_node``: daemon keys.

    Edges from nodes that are not in ``by_node`` are left out.
    """
    nodes = {node.id: node for node in dataflow.nodes}
    found: dict[str, list[RemoteEdge]] = {}
    on_cycles = _on_cycles(dataflow)
    for source, consumer, input_id in dataflow.edges():
        there, here = by_node.get(source.node), by_node.get(consumer)
        if there is None or here is None or there == here:
            continue
        wanted = nodes[consumer].inputs[input_id]
        edge = RemoteEdge(
            source=source.node,
            output=source.output,
            target=consumer,
            input=input_id,
            queue_size=wanted.queue_size,
            queue_policy=wanted.queue_policy,
            input_timeout=wanted.input_timeout,
            source_machine=there,
            target_machine=here,
            cycles=on_cycles.get((source.node, consumer, wanted.queue_policy), ()),
        )
        for machine in (there, here):
            found.setdefault(machine, []).append(edge)
    for edge in _log_edges(dataflow, by_node):
        for machine in (edge.source_machine, edge.target_machine):
            found.setdefault(machine, []).append(edge)
    return {machine: tuple(edges) for machine, edges in found.items()}


def _on_cycles(
    dataflow: ResolvedDataflow,
) -> dict[tuple[str, str, str], tuple[tuple[str, ...], ...]]:
    """The cycles that backpressure edges lie on, by source, target and "backpressure"."""
    readers: dict[str, list[str]] = {node.id: [] for node in dataflow.nodes}
    for node in dataflow.nodes:
        for wanted in node.inputs.values():
            source = wanted.source
            if wanted.queue_policy == "backpressure" and isinstance(source, OutputSource):
                readers.setdefault(source.node, []).append(node.id)
    found: dict[tuple[str, str, str], tuple[tuple[str, ...], ...]] = {}
    for cycle in cycles(readers):
        for source_node, target in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
            key = (source_node, target, "backpressure")
            found[key] = (*found.get(key, ()), tuple(cycle))
    return found


def _log_edges(dataflow: ResolvedDataflow, by_node: Mapping[str, str]) -> Iterable[RemoteEdge]:
    """From every other machine to each reader of logs: "dora" is the node that they come from."""
    machines = tuple(dict.fromkeys(by_node.values()))
    for node in dataflow.nodes:
        here = by_node.get(node.id)
        for input_id, wanted in node.inputs.items():
            source = wanted.source
            if here is None or not isinstance(source, LogSource):
                continue
            about = machines if source.node is None else (by_node.get(source.node),)
            for there in about:
                if there is not None and there != here:
                    yield RemoteEdge(
                        source="dora",
                        output=str(source).removeprefix("dora/"),
                        target=node.id,
                        input=input_id,
                        queue_size=wanted.queue_size,
                        source_machine=there,
                        target_machine=here,
                    )


@dataclass(frozen=True, slots=True)
class Unlinked:
    """A pair that is not linked; ``reason`` tells what each end says, if it says anything."""

    pair: Pair
    lost: bool
    """It has been linked before."""
    reason: str | None
    slow: bool = False
    """Connections between the two are made, but take long: waiting may help."""

    def __str__(self) -> str:
        first, second = self.pair
        manner = "have lost each other" if self.lost else "cannot reach each other"
        return f'"{first}" and "{second}" {manner}' + (f": {self.reason}" if self.reason else "")

    def awaited(self) -> str:
        """The same while there is still time."""
        first, second = self.pair
        reason = f": {self.reason}" if self.reason else ""
        slow = " over a slow network" if self.slow else ""
        return f'"{first}" and "{second}" have not reached each other yet{slow}{reason}'


@dataclass(frozen=True, slots=True)
class News:
    """What a report changed."""

    moved: bool = False
    """The machine listens elsewhere, or is in another life: its peers must be told."""
    broken: tuple[Unlinked, ...] = ()
    """Pairs that have just been lost."""
    linked: tuple[Pair, ...] = ()

    def log(self, label: str) -> list[Command]:
        """What is worth a line about the dataflow of that label."""
        lost = [Log("warning", f"dataflow {label}: {unlinked}") for unlinked in self.broken]
        again = [
            Log("info", f'dataflow {label}: "{first}" and "{second}" are linked')
            for first, second in self.linked
        ]
        return [*lost, *again]


@dataclass(slots=True)
class _End:
    """One part as an end of links."""

    edges: tuple[RemoteEdge, ...]
    peers: tuple[str, ...]
    report: LinkReport | None = None
    by_peer: dict[str, PeerReport] = field(default_factory=dict)
    ended: bool = False


@dataclass(frozen=True, slots=True)
class _View:
    linked: bool = False
    lost: bool = False
    reason: str | None = None
    slow: bool = False


class Links:
    """A report costs as much as its machine has peers, however large the dataflow is."""

    def __init__(self, edges: Mapping[str, tuple[RemoteEdge, ...]]) -> None:
        """``edges`` as :func:`remote_edges` has them."""
        self._ends = {
            machine: _End(own, tuple(sorted({edge.peer_of(machine) for edge in own})))
            for machine, own in edges.items()
        }
        self._early: dict[str, LinkReport] = {}
        """Of machines none of whose peers is known yet, since parts are adopted one by one."""
        self._unlinked: dict[Pair, Unlinked] = {}
        self._silent = dict.fromkeys(edges)
        """Machines that have not said yet whether they listen, in order."""
        self._deaf: dict[str, str] = {}
        """Machines that cannot listen, and why."""
        for machine in self._ends:
            self._refresh(machine)

    def __bool__(self) -> bool:
        """Whether any edge leaves a machine."""
        return bool(self._ends)

    @property
    def machines(self) -> Iterable[str]:
        """Those that take part."""
        return self._ends.keys()

    def edges_of(self, machine: str) -> tuple[RemoteEdge, ...]:
        end = self._ends.get(machine)
        return () if end is None else end.edges

    def peers_of(self, machine: str) -> tuple[str, ...]:
        """Machines that share an edge with this one."""
        end = self._ends.get(machine)
        return () if end is None else end.peers

    def report_of(self, machine: str) -> LinkReport | None:
        """What it said last, in its present life."""
        end = self._ends.get(machine)
        return None if end is None else end.report

    def endpoint(self, machine: str) -> PeerEndpoint | None:
        """Where it listens, if it does."""
        report = self.report_of(machine)
        if report is None or not report.endpoints:
            return None
        return PeerEndpoint(machine=machine, run_id=report.run_id, endpoints=report.endpoints)

    def endpoints_for(self, machine: str) -> tuple[PeerEndpoint, ...]:
        """Where its peers listen, those that do."""
        found = (self.endpoint(peer) for peer in self.peers_of(machine) if not self._ended(peer))
        return tuple(endpoint for endpoint in found if endpoint is not None)

    def ended_peers_of(self, machine: str) -> tuple[str, ...]:
        """Its peers whose part has ended for good."""
        return tuple(peer for peer in self.peers_of(machine) if self._ended(peer))

    def take_over(self, earlier: Links) -> None:
        """Know what ``earlier`` knew of machines that take part here too."""
        for machine, early in earlier._early.items():
            self.note(machine, early)
        for machine in earlier.machines:
            report = earlier.report_of(machine)
            if report is not None:
                self.note(machine, report)

    # --------------------------------------------------------------------- changes

    def note(self, machine: str, report: LinkReport) -> News:
        """A part said how its link is."""
        end = self._ends.get(machine)
        if end is None:
            self._early[machine] = report
            return News()
        if end.ended:
            return News()
        before = self.endpoint(machine)
        end.report = report
        end.by_peer = {peer.machine: peer for peer in report.peers}
        self._note_ears(machine, report)
        broken, linked = self._refresh(machine)
        after = self.endpoint(machine)
        return News(after is not None and after != before, broken, linked)

    def forget(self, machine: str) -> None:
        """Its runner is gone, and with it the link; another may follow."""
        self._early.pop(machine, None)
        end = self._ends.get(machine)
        if end is not None:
            end.report = None
            end.by_peer = {}
            self._note_ears(machine, None)
            self._refresh(machine)

    def end(self, machine: str) -> None:
        """The part has ended for good: nobody misses it."""
        end = self._ends.get(machine)
        if end is not None:
            end.ended = True
            self._silent.pop(machine, None)
            self._deaf.pop(machine, None)
            self._refresh(machine)

    def _note_ears(self, machine: str, report: LinkReport | None) -> None:
        if report is None or not (report.endpoints or report.problem):
            self._silent[machine] = None
        else:
            self._silent.pop(machine, None)
        self._deaf.pop(machine, None)
        if report is not None and report.problem is not None:
            self._deaf[machine] = report.problem

    def _refresh(self, machine: str) -> tuple[tuple[Unlinked, ...], tuple[Pair, ...]]:
        """Judge all pairs of one machine anew: those that were just lost, those just linked."""
        broken: list[Unlinked] = []
        linked: list[Pair] = []
        for peer in self._ends[machine].peers:
            pair = (machine, peer) if machine < peer else (peer, machine)
            before = self._unlinked.get(pair)
            after = self._judge(pair)
            if after is None:
                self._unlinked.pop(pair, None)
                if before is not None:
                    linked.append(pair)
            else:
                self._unlinked[pair] = after
                if after.lost and (before is None or not before.lost):
                    broken.append(after)
        return tuple(broken), tuple(linked)

    def _judge(self, pair: Pair) -> Unlinked | None:
        if any(self._ended(machine) for machine in pair):
            return None
        views = (self._view(pair[0], pair[1]), self._view(pair[1], pair[0]))
        if all(view.linked for view in views):
            return None
        reasons = [view.reason for view in views if view.reason]
        lost, slow = any(view.lost for view in views), any(view.slow for view in views)
        return Unlinked(pair, lost, ", ".join(reasons) or None, slow)

    def _view(self, machine: str, peer: str) -> _View:
        """What one end says of the other."""
        end, other = self._ends[machine], self._ends[peer]
        if end.report is None:
            return _View()
        if end.report.problem is not None:
            return _View(reason=f'"{machine}" does not listen ({end.report.problem})')
        said = end.by_peer.get(peer)
        life = None if other.report is None else other.report.run_id
        if said is None or said.run_id not in (None, life):
            return _View()  # nothing yet of the peer's present life
        if said.state in ("proven", "left"):
            return _View(linked=True, slow=said.slow)
        reason = None
        if said.reason:
            where = f" tried {said.endpoint}" if said.endpoint else ""
            reason = f'"{machine}"{where} ({said.reason})'
        return _View(lost=said.state == "lost", reason=reason, slow=said.slow)

    def _ended(self, machine: str) -> bool:
        return self._ends[machine].ended

    # ----------------------------------------------------------------------- views

    @property
    def all_listen(self) -> bool:
        """Whether every machine has said whether it listens."""
        return not self._silent

    @property
    def all_linked(self) -> bool:
        return not self._unlinked

    def silent(self) -> list[str]:
        """Machines that have not said yet whether they listen."""
        return list(self._silent)

    def deaf(self) -> list[str]:
        """A sentence for each machine that cannot listen."""
        return [
            f'daemon "{machine}" cannot listen for links: {problem}'
            for machine, problem in self._deaf.items()
        ]

    def unlinked(self) -> list[Unlinked]:
        """All pairs that are not linked, sorted."""
        return [self._unlinked[pair] for pair in sorted(self._unlinked)]

    def degraded(self) -> str | None:
        """What stands in the way of links that should be there; ``None``: nothing."""
        return "; ".join(str(one) for one in self.unlinked() if one.lost or one.reason) or None

    @property
    def only_slow(self) -> bool:
        """Whether every pair that is not linked is slow."""
        return all(one.slow for one in self._unlinked.values())

    def awaited(self) -> str:
        """The pairs that are not linked yet, for the user who waits."""
        return "; ".join(one.awaited() for one in self.unlinked())

    def complaint(self) -> str:
        """All pairs that cannot reach each other, and what to do, for whoever started them."""
        lines = [str(one) if one.reason else f"{one}: no answer" for one in self.unlinked()]
        if lines and all(WRONG_CLOCK in line for line in lines):
            return "\n".join(lines)  # no firewall is to blame, and the reason has the remedy
        return "\n".join((*lines, ADVICE))
