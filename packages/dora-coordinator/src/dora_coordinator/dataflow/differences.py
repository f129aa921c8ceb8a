"""Differences between the records of a coordinator and the reports of machines; pure.

Everything is compared, however it came about: events only let the comparison take place earlier.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from dora_config.protocol.daemon import PartReport
from dora_config.protocol.runner import NodeStatus
from dora_config.yaml.quantities import show_age
from dora_coordinator.state.records import PartState

MAX_DIFFERENCE_SECONDS: Final = 30.0
"""Seconds after which a difference is repaired or named at the latest."""

Kind = Literal[
    "away",
    "unconfirmed",
    "unreported",
    "unnoticed",
    "unprepared",
    "starting",
    "missing",
    "unreleased",
    "unstopped",
    "outdated",
    "unconnected",
    "unlinked",
    "node",
    "unknown",
]
"""``away``: the machine is not connected. ``unconfirmed``: only other machines have a record of the
part. ``unreported``: the machine does not report the part. ``unnoticed``: it reports another state
than the recorded one. ``unprepared``: it has not begun to start the part.
``starting``: its nodes have not connected yet. ``missing``: no process of it runs.
``outdated``: the machine keeps an earlier description of the whole dataflow. ``unconnected``: a
link lacks the address of its peer. ``unlinked``: two links do not reach each other. ``node``: a
node has failed. ``unknown``: a machine reports a part without a record."""

Key = tuple[Kind, str, str]
"""Identity of a difference within one dataflow: kind, machine, and node or other machine."""
Wanted = Literal["starts", "runs", "stops", "ended"]
_LIVE: Final = ("preparing", "prepared", "running", "stopping", "lost")
REPAIRED_AFTER: Final[Mapping[Kind, float]] = {
    "missing": 0.0,
    "outdated": 0.0,
    "unconnected": 5.0,
    "unreleased": 5.0,
    "unstopped": 5.0,
    "unknown": 5.0,
    "unnoticed": 5.0,
    "unprepared": 15.0,
    "unreported": MAX_DIFFERENCE_SECONDS,
}
"""Seconds for which a difference lasts before it is repaired: messages may be under way. The other
kinds are only named."""
NAMED_AFTER: Final[Mapping[Kind, float]] = {"unconfirmed": 0.0, "node": 0.0}
"""Seconds until a difference is named; `MAX_DIFFERENCE_SECONDS` for other kinds."""
_DOCTOR: Final = "`dora doctor cluster.yml` checks machines and ports"
_AGAIN: Final = "`dora restart {label}` starts all again"
_OUTPUT: Final = "`dora logs {label}` shows their output"
_SENTENCES: Final[Mapping[Kind, str]] = {
    "away": 'machine "{machine}" has not been connected{since} (nodes {nodes}); '
    f"{_DOCTOR}, `dora stop {{label}}` gives it up",
    "unconfirmed": 'machine "{machine}" has no record of nodes {nodes}, which other machines name; '
    "`dora restart {label}` starts them",
    "unreported": f'machine "{{machine}}" does not report nodes {{nodes}}; {_AGAIN}',
    "unnoticed": 'machine "{machine}" reports nodes {nodes} as {phase}, not {state}; ' + _AGAIN,
    "unprepared": f'machine "{{machine}}" has not begun to start nodes {{nodes}}; {_AGAIN}',
    "starting": 'nodes {nodes} on machine "{machine}" have not connected yet; ' + _OUTPUT,
    "missing": 'nodes {nodes} are started again and again on machine "{machine}"{why}; ' + _OUTPUT,
    "unreleased": 'nodes on machine "{machine}" wait to be released',
    "unstopped": 'nodes {nodes} still run on machine "{machine}"; '
    "`dora stop {label} --force` kills them",
    "outdated": 'machine "{machine}" keeps an earlier description of the dataflow',
    "unconnected": 'machine "{machine}" lacks the address of "{other}"',
    "node": 'node "{other}" has failed: {why}; `dora node restart {other}` starts it again',
}
"""Sentences about a difference, each with the command that helps."""


@dataclass(frozen=True, slots=True)
class RecordedPart:
    machine: str
    nodes: tuple[str, ...]
    state: PartState
    attempt: int = 1
    claimed: bool = False
    reason: str | None = None
    """Why the part is started again."""
    failed: tuple[tuple[str, str], ...] = ()
    """Nodes that had failed at the end of the part, with the reason."""
    peers: tuple[str, ...] = ()
    """Machines with which it exchanges messages and whose part has not ended."""


@dataclass(frozen=True, slots=True)
class RecordedDataflow:
    id: str
    label: str
    """Name or id of the dataflow, as commands accept it."""
    wanted: Wanted
    changes: int
    parts: tuple[RecordedPart, ...]
    unlinked: tuple[tuple[str, str, str], ...] = ()
    """Two machines whose links do not reach each other, and a sentence about them."""
    linked: bool = False
    """All links reach each other."""


@dataclass(frozen=True, slots=True)
class ReportedMachine:
    connected: bool
    away_since: float = 0.0
    parts: Mapping[str, PartReport] = field(default_factory=dict)
    """Reports by dataflow id."""
    nodes: Mapping[str, Sequence[NodeStatus]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Difference:
    kind: Kind
    dataflow: str
    machine: str
    other: str = ""
    """Node, or machine at the other end of a link."""
    text: str = ""
    """Sentence about the difference, with the command that helps."""

    @property
    def key(self) -> Key:
        return self.kind, self.machine, self.other


def differences(
    recorded: Sequence[RecordedDataflow], reported: Mapping[str, ReportedMachine], now: float
) -> list[Difference]:
    """Return all that differs; ``now`` for ages in the sentences."""
    found = [one for dataflow in recorded for one in _of_dataflow(dataflow, reported, now)]
    known = {(dataflow.id, part.machine) for dataflow in recorded for part in dataflow.parts}
    for machine, report in reported.items():
        for dataflow_id in report.parts if report.connected else ():
            if (dataflow_id, machine) not in known:
                text = f'machine "{machine}" has nodes of dataflow {dataflow_id}, without a record'
                found.append(Difference("unknown", dataflow_id, machine, text=text))
    return found


def _of_dataflow(
    dataflow: RecordedDataflow, reported: Mapping[str, ReportedMachine], now: float
) -> Iterator[Difference]:
    """Yield what differs in one dataflow."""
    for part in dataflow.parts:
        yield from _Comparison(dataflow, part, reported, now).found()
    if dataflow.wanted in ("starts", "runs"):
        for first, second, text in dataflow.unlinked:
            yield Difference("unlinked", dataflow.id, first, second, f"{text}; {_DOCTOR}")
    waiting = [part for part in dataflow.parts if part.state is PartState.PREPARED]
    all_wait = waiting and len(waiting) == len(dataflow.parts)
    if dataflow.wanted == "starts" and dataflow.linked and all_wait:
        text = f"all nodes wait to be released; `dora restart {dataflow.label}` starts them again"
        yield Difference("unreleased", dataflow.id, waiting[0].machine, text=text)


_UNKNOWN: Final = ReportedMachine(connected=False)


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Comparison of one part with what its machine reports."""

    dataflow: RecordedDataflow
    part: RecordedPart
    reported: Mapping[str, ReportedMachine]
    now: float

    def _differs(self, kind: Kind, other: str = "", **facts: object) -> Difference:
        nodes, label = ", ".join(self.part.nodes), self.dataflow.label
        facts |= {"machine": self.part.machine, "nodes": nodes, "label": label, "other": other}
        text = _SENTENCES[kind].format(**facts)
        return Difference(kind, self.dataflow.id, self.part.machine, other, text)

    def _report_of(self, machine: str) -> PartReport | None:
        return self.reported.get(machine, _UNKNOWN).parts.get(self.dataflow.id)

    def found(self) -> Iterator[Difference]:
        part, wanted = self.part, self.dataflow.wanted
        machine = self.reported.get(part.machine, _UNKNOWN)
        if not machine.connected:
            if part.state is not PartState.ENDED and wanted in ("starts", "runs"):
                age = self.now - machine.away_since
                since = f" for {show_age(age)}" if machine.away_since else ""
                yield self._differs("away", since=since)
            return
        report = self._report_of(part.machine)
        if wanted in ("stops", "ended") or part.state is PartState.ENDED:
            yield from self._ending(report)
        elif report is not None and _is_unnoticed(part, report):
            yield self._differs("unnoticed", phase=report.phase, state=part.state)
        elif _is_unprepared(part, report):
            yield self._differs("unprepared")
        else:
            alive = report is not None and report.phase in _LIVE
            if part.state is PartState.MISSING:
                yield self._differs("missing", why=f" ({part.reason})" if part.reason else "")
            elif report is None or not alive:
                yield self._differs("unconfirmed" if part.claimed else "unreported")
            elif report.phase == "lost" and report.attempt >= part.attempt:
                yield self._differs("unreported")
            else:
                yield from self._running(report)
            for node in machine.nodes.get(self.dataflow.id, ()) if alive else ():
                if node.status == "Failed" and not node.dynamic:
                    yield self._differs("node", node.node, why=node.error or "see its log")

    def _ending(self, report: PartReport | None) -> Iterator[Difference]:
        """Yield what differs in a part that has ended or is to end."""
        has_ended = self.part.state is PartState.ENDED
        if report is None:
            if not has_ended:
                yield self._differs("unreported")
        elif report.phase in _LIVE and not report.stopped:
            yield self._differs("unstopped")
        if self.dataflow.wanted == "runs" and has_ended:
            for node, reason in self.part.failed:
                yield self._differs("node", node, why=reason)

    def _running(self, report: PartReport) -> Iterator[Difference]:
        if report.phase == "preparing":
            yield self._differs("starting")
        if report.phase == "prepared" and self.dataflow.wanted == "runs":
            yield self._differs("unreleased")
        if report.changes < self.dataflow.changes and report.attempt == self.part.attempt:
            yield self._differs("outdated")
        link = report.link
        known = {} if link is None else {peer.machine: peer.run_id for peer in link.peers}
        for peer in self.part.peers:
            other = self._report_of(peer)
            listening = None if other is None else other.link
            if link is None or listening is None or not listening.endpoints:
                continue
            if known.get(peer) != listening.run_id:
                yield self._differs("unconnected", peer)


def _is_unnoticed(part: RecordedPart, report: PartReport) -> bool:
    """Whether the report of a part that has not ended should have changed its recorded state."""
    if report.attempt < part.attempt or report.phase == "lost":
        return False
    return part.state is not PartState.MISSING and report.phase != part.state.value


def _is_unprepared(part: RecordedPart, report: PartReport | None) -> bool:
    """Whether the machine has nothing of a part that it was requested to start."""
    if part.claimed or part.state is not PartState.PREPARING:
        return False
    return report is None or report.phase == "lost" or report.attempt < part.attempt
