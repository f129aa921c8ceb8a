"""State machine of the links between the machines of one dataflow; pure.

Two machines that share an edge are a *pair*. A pair is linked when each of the two reports the
other, with its current run id, as connected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dora_config.protocol.links import (
    LINK_PROTOCOL,
    LINKS_SETTING,
    LinkReport,
    PeerEndpoint,
    PeerReport,
    RemoteEdge,
)
from dora_coordinator.state.commands import Command, Log

ADVICE = (
    "open one of these TCP ports in the firewall of its machine, or have the daemon listen on "
    "another address with --zenoh-listen"
)

Pair = tuple[str, str]
"""Keys of two daemons, sorted."""


@dataclass(frozen=True, slots=True)
class Unlinked:
    """A pair that is not linked; ``reason`` quotes the reports of its ends, if there are any."""

    pair: Pair
    lost: bool
    """Whether the two were linked before."""
    reason: str | None
    slow: bool = False
    """Connections between the two succeed but take long; waiting may help."""

    def __str__(self) -> str:
        first, second = self.pair
        manner = "have lost each other" if self.lost else "cannot reach each other"
        return f'"{first}" and "{second}" {manner}' + (f": {self.reason}" if self.reason else "")

    def pending(self) -> str:
        """Describe the pair while the time limit has not passed."""
        first, second = self.pair
        reason = f": {self.reason}" if self.reason else ""
        slow = " over a slow network" if self.slow else ""
        return f'"{first}" and "{second}" have not reached each other yet{slow}{reason}'


def explain_unlinked(pairs: Sequence[Unlinked]) -> str:
    """Describe all pairs that cannot reach each other and what to do, one per line."""
    lines = [str(pair) if pair.reason else f"{pair}: no answer" for pair in pairs]
    if lines and all(LINKS_SETTING in line or LINK_PROTOCOL in line for line in lines):
        return "\n".join(lines)  # not a firewall problem; the reason contains the remedy
    return "\n".join((*lines, ADVICE))


@dataclass(frozen=True, slots=True)
class LinkChanges:
    """Result of an event of :class:`Links`."""

    moved: bool = False
    """The machine listens at another address or has another run id; its peers need the new one."""
    broken: tuple[Unlinked, ...] = ()
    """Pairs that have just lost their link."""
    linked: tuple[Pair, ...] = ()

    def log(self, label: str) -> list[Command]:
        """Return log lines for the dataflow with that label."""
        broken = [Log("warning", f"dataflow {label}: {pair}") for pair in self.broken]
        linked = [
            Log("info", f'dataflow {label}: "{first}" and "{second}" are linked')
            for first, second in self.linked
        ]
        return [*broken, *linked]


@dataclass(slots=True)
class _LinkEnd:
    """One part as an end of links."""

    edges: tuple[RemoteEdge, ...]
    peers: tuple[str, ...]
    report: LinkReport | None = None
    by_peer: dict[str, PeerReport] = field(default_factory=dict)
    ended: bool = False


class Links:
    """Links of one dataflow. The cost of a report grows with the peers of its machine only."""

    def __init__(
        self, edges: Mapping[str, tuple[RemoteEdge, ...]], earlier: Links | None = None
    ) -> None:
        """``edges`` as returned by `remote_edges`; reports that ``earlier`` received are kept."""
        self._ends = {
            machine: _LinkEnd(own, tuple(sorted({edge.peer_of(machine) for edge in own})))
            for machine, own in edges.items()
        }
        self._early: dict[str, LinkReport] = {}
        """Reports of machines whose peers are not known yet: parts are adopted one by one."""
        self._unlinked: dict[Pair, Unlinked] = {}
        self._unreported = dict.fromkeys(edges)
        """Machines that have not reported whether they listen, in order."""
        self._unable_to_listen: dict[str, str] = {}
        """Machines that cannot listen, and why."""
        for machine in self._ends:
            self._refresh(machine)
        if earlier is not None:
            for machine, report in earlier._reports():
                self.reported(machine, report)

    def reported(self, machine: str, report: LinkReport) -> LinkChanges:
        """Store the state of its link that a part reported."""
        end = self._ends.get(machine)
        if end is None:
            self._early[machine] = report
            return LinkChanges()
        if end.ended:
            return LinkChanges()
        before = self.endpoint(machine)
        end.report = report
        end.by_peer = {peer.machine: peer for peer in report.peers}
        self._unable_to_listen.pop(machine, None)
        if report.problem is not None:
            self._unable_to_listen[machine] = report.problem
        if report.endpoints or report.problem:
            self._unreported.pop(machine, None)
        else:
            self._unreported[machine] = None
        broken, linked = self._refresh(machine)
        after = self.endpoint(machine)
        return LinkChanges(after is not None and after != before, broken, linked)

    def runner_lost(self, machine: str) -> None:
        """Handle the loss of a part's runner and its link; another may follow."""
        self._early.pop(machine, None)
        if (end := self._ends.get(machine)) is not None:
            end.report = None
            end.by_peer = {}
            self._unable_to_listen.pop(machine, None)
            self._unreported[machine] = None
            self._refresh(machine)

    def part_ended(self, machine: str) -> None:
        """Handle the permanent end of a part; its peers need no link to it any more."""
        if (end := self._ends.get(machine)) is not None:
            end.ended = True
            self._unreported.pop(machine, None)
            self._unable_to_listen.pop(machine, None)
            self._refresh(machine)

    def _refresh(self, machine: str) -> tuple[tuple[Unlinked, ...], tuple[Pair, ...]]:
        """Evaluate all pairs of one machine again; return those just lost and those just linked."""
        broken: list[Unlinked] = []
        linked: list[Pair] = []
        for peer in self._ends[machine].peers:
            pair = (machine, peer) if machine < peer else (peer, machine)
            before = self._unlinked.get(pair)
            after = self._evaluate(pair)
            if after is None:
                self._unlinked.pop(pair, None)
                if before is not None:
                    linked.append(pair)
            else:
                self._unlinked[pair] = after
                if after.lost and (before is None or not before.lost):
                    broken.append(after)
        return tuple(broken), tuple(linked)

    def _evaluate(self, pair: Pair) -> Unlinked | None:
        if any(self._ended(machine) for machine in pair):
            return None
        first, second = pair
        seen = (self._reported_by(first, second), self._reported_by(second, first))
        if all(peer.state in ("connected", "left") for peer in seen):
            return None
        reasons = [
            f'"{machine}"{f" tried {peer.endpoint}" if peer.endpoint else ""} ({peer.reason})'
            for machine, peer in zip(pair, seen, strict=True)
            if peer.reason
        ]
        lost, slow = any(peer.state == "lost" for peer in seen), any(peer.slow for peer in seen)
        return Unlinked(pair, lost, ", ".join(reasons) or None, slow)

    def _reported_by(self, machine: str, peer: str) -> PeerReport:
        """Return the state of ``peer``'s current run as ``machine`` reported it."""
        end, other = self._ends[machine], self._ends[peer]
        unknown = PeerReport(machine=peer)
        if end.report is None:
            return unknown
        if end.report.problem is not None:
            reason = f"does not listen: {end.report.problem}"
            return PeerReport(machine=peer, reason=reason)
        run_id = None if other.report is None else other.report.run_id
        reported = end.by_peer.get(peer, unknown)
        return reported if reported.run_id in (None, run_id) else unknown

    def _ended(self, machine: str) -> bool:
        return self._ends[machine].ended

    def _reports(self) -> Iterable[tuple[str, LinkReport]]:
        """Yield the last report of each machine."""
        yield from self._early.items()
        for machine, end in self._ends.items():
            if end.report is not None:
                yield machine, end.report

    # ----------------------------------------------------------------------- views

    def __bool__(self) -> bool:
        """Whether any edge leaves a machine."""
        return bool(self._ends)

    @property
    def machines(self) -> Iterable[str]:
        """Machines with at least one edge to another machine."""
        return self._ends.keys()

    def edges_of(self, machine: str) -> tuple[RemoteEdge, ...]:
        end = self._ends.get(machine)
        return () if end is None else end.edges

    def peers_of(self, machine: str) -> tuple[str, ...]:
        """Machines that share an edge with this one."""
        end = self._ends.get(machine)
        return () if end is None else end.peers

    def report_of(self, machine: str) -> LinkReport | None:
        """Last report of the machine's current run."""
        end = self._ends.get(machine)
        return None if end is None else end.report

    def endpoint(self, machine: str) -> PeerEndpoint | None:
        """Return the address at which the machine listens; None: it does not listen."""
        report = self.report_of(machine)
        if report is None or not report.endpoints:
            return None
        return PeerEndpoint(
            machine=machine, run_id=report.run_id, endpoints=report.endpoints, plain=report.plain
        )

    def endpoints_for(self, machine: str) -> tuple[PeerEndpoint, ...]:
        """Endpoints of the machine's peers, as far as they listen."""
        found = (self.endpoint(peer) for peer in self.peers_of(machine) if not self._ended(peer))
        return tuple(endpoint for endpoint in found if endpoint is not None)

    def ended_peers_of(self, machine: str) -> tuple[str, ...]:
        """Peers whose part has ended permanently."""
        return tuple(peer for peer in self.peers_of(machine) if self._ended(peer))

    @property
    def all_listen(self) -> bool:
        """Whether every machine has reported whether it listens."""
        return not self._unreported

    @property
    def all_linked(self) -> bool:
        return not self._unlinked

    def unreported(self) -> list[str]:
        """Machines that have not reported whether they listen."""
        return list(self._unreported)

    def unable_to_listen(self) -> list[str]:
        """A sentence for each machine that cannot listen."""
        return [
            f'daemon "{machine}" cannot listen for links: {problem}'
            for machine, problem in self._unable_to_listen.items()
        ]

    def unlinked(self) -> list[Unlinked]:
        """All pairs that are not linked, sorted."""
        return [self._unlinked[pair] for pair in sorted(self._unlinked)]

    def degraded(self) -> str | None:
        """Why links are missing; None while no pair was lost and no end reports a reason."""
        return "; ".join(str(one) for one in self.unlinked() if one.lost or one.reason) or None

    @property
    def only_slow(self) -> bool:
        """Whether every pair that is not linked is slow."""
        return all(one.slow for one in self._unlinked.values())

    def pending(self) -> str:
        """The pairs that are not linked yet, for the progress of a start."""
        return "; ".join(one.pending() for one in self.unlinked())

    def explain_unlinked(self) -> str:
        """All pairs that cannot reach each other, and what to do."""
        return explain_unlinked(self.unlinked())
