"""Differences between the records of a coordinator and the reports of machines; pure.

All parts are compared regularly, whatever caused a difference; events only trigger it earlier.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from dora_config.protocol.daemon import PartReport
from dora_config.yaml.quantities import show_age
from dora_coordinator.dataflow.data import DataflowData
from dora_coordinator.dataflow.part import Part
from dora_coordinator.state.membership import Member, Membership
from dora_coordinator.state.records import PartState, Phase

MAX_DIFFERENCE_SECONDS: Final = 30.0
"""Longest time in seconds until a difference is repaired or reported."""

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
``unreleased``: its nodes wait to be released. ``unstopped``: its nodes run after a stop or an end.
``starting``: its nodes have not connected yet. ``missing``: no process of it runs.
``outdated``: the machine keeps an earlier description of the whole dataflow. ``unconnected``: a
link lacks the address of its peer. ``unlinked``: two links do not reach each other. ``node``: a
node has failed. ``unknown``: a machine reports a part without a record."""

Key = tuple[Kind, str, str]
"""Identity of a difference within one dataflow: kind, machine, and node or other machine."""
Wanted = Literal["starts", "runs", "stops", "ended"]
_WANTED: Final[Mapping[Phase, Wanted]] = {
    Phase.PREPARING: "starts",
    Phase.LINKING: "starts",
    Phase.RELEASING: "runs",
    Phase.RUNNING: "runs",
    Phase.RECOVERING: "runs",
    Phase.STOPPING: "stops",
    Phase.ROLLING_BACK: "stops",
    Phase.FINISHED: "ended",
    Phase.FAILED: "ended",
}
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
"""Seconds before a difference is repaired, because messages may be in flight. Other kinds are only
reported."""
NAMED_AFTER: Final[Mapping[Kind, float]] = {"unconfirmed": 0.0, "node": 0.0}
"""Seconds until a difference is reported; `MAX_DIFFERENCE_SECONDS` for other kinds."""
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
"""Sentence about each kind of difference, with the command that helps if there is one."""


@dataclass(frozen=True, slots=True)
class Difference:
    kind: Kind
    dataflow: str
    machine: str
    other: str = ""
    """Node, or machine at the other end of a link."""
    text: str = ""
    """Sentence about the difference."""

    @property
    def key(self) -> Key:
        return self.kind, self.machine, self.other


def of_parts(
    data: DataflowData, parts: Iterable[Part], membership: Membership, now: float
) -> Iterator[Difference]:
    """Yield what differs in some parts of a dataflow; ``now`` for ages in the sentences."""
    for part in parts:
        yield from _Comparison(data, part, membership, now).found()


def of_dataflow(data: DataflowData, membership: Membership, now: float) -> Iterator[Difference]:
    """Yield what differs in a whole dataflow."""
    yield from of_parts(data, data.parts.values(), membership, now)
    wanted = _WANTED[data.phase]
    if wanted in ("starts", "runs"):
        for pair in data.links.unlinked():
            yield Difference("unlinked", data.id, *pair.pair, f"{pair}; {_DOCTOR}")
    if wanted == "starts" and data.parts and data.parts.all_prepared and data.links.all_linked:
        text = f"all nodes wait to be released; `dora restart {_name(data)}` starts them again"
        yield Difference("unreleased", data.id, next(iter(data.parts)), text=text)


def without_record(
    known: Mapping[str, DataflowData], members: Iterable[Member]
) -> Iterator[Difference]:
    """Yield the parts that connected machines report and that are in no record."""
    for member in members:
        for dataflow_id in member.parts if member.connection is not None else ():
            if dataflow_id not in known or member.key not in known[dataflow_id].parts:
                text = (
                    f'machine "{member.key}" has nodes of dataflow {dataflow_id}, without a record'
                )
                yield Difference("unknown", dataflow_id, member.key, text=text)


def _name(data: DataflowData) -> str:
    """Return the name or id of a dataflow, as commands accept it."""
    return data.name or data.id


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Comparison of one part with what its machine reports."""

    data: DataflowData
    part: Part
    membership: Membership
    now: float

    @property
    def _wanted(self) -> Wanted:
        return _WANTED[self.data.phase]

    def _differs(self, kind: Kind, other: str = "", **facts: object) -> Difference:
        nodes, label = ", ".join(self.part.nodes), _name(self.data)
        facts |= {"machine": self.part.daemon, "nodes": nodes, "label": label, "other": other}
        text = _SENTENCES[kind].format(**facts)
        return Difference(kind, self.data.id, self.part.daemon, other, text)

    def _report_of(self, machine: str) -> PartReport | None:
        member = self.membership.get(machine)
        return None if member is None else member.parts.get(self.data.id)

    def found(self) -> Iterator[Difference]:
        part, wanted = self.part, self._wanted
        member = self.membership.get(part.daemon)
        if member is None or member.connection is None:
            if not part.ended and wanted in ("starts", "runs"):
                age = None if member is None else show_age(self.now - member.last_message)
                yield self._differs("away", since="" if age is None else f" for {age}")
            return
        report = self._report_of(part.daemon)
        if wanted in ("stops", "ended") or part.ended:
            yield from self._ending(report)
        elif report is not None and _is_unnoticed(part, report):
            yield self._differs("unnoticed", phase=report.phase, state=part.state)
        elif _is_unprepared(part, report):
            yield self._differs("unprepared")
        else:
            alive = report is not None and report.phase in _LIVE
            if part.state is PartState.MISSING:
                why = f" ({part.recovery_reason})" if part.recovery_reason else ""
                yield self._differs("missing", why=why)
            elif report is None or not alive:
                yield self._differs("unconfirmed" if part.claimed else "unreported")
            elif report.phase == "lost" and report.attempt >= part.attempt:
                yield self._differs("unreported")
            else:
                yield from self._running(report)
            metrics = member.metrics.get(self.data.id) if alive else None
            for node in () if metrics is None else metrics.nodes:
                if node.status == "Failed" and not node.dynamic:
                    yield self._differs("node", node.node, why=node.error or "see its log")

    def _ending(self, report: PartReport | None) -> Iterator[Difference]:
        """Yield what differs in a part that has ended or is to end."""
        part = self.part
        if report is None:
            if not part.ended:
                yield self._differs("unreported")
        elif report.phase in _LIVE and not report.stopped:
            yield self._differs("unstopped")
        if self._wanted == "runs" and part.ended and part.result is not None:
            for node in part.result.root_causes:
                yield self._differs("node", node.node, why=node.message)

    def _running(self, report: PartReport) -> Iterator[Difference]:
        if report.phase == "preparing":
            yield self._differs("starting")
        if report.phase == "prepared" and self._wanted == "runs":
            yield self._differs("unreleased")
        if report.changes < self.data.changes and report.attempt == self.part.attempt:
            yield self._differs("outdated")
        link = report.link
        known = {} if link is None else {peer.machine: peer.run_id for peer in link.peers}
        ended = self.data.links.ended_peers_of(self.part.daemon)
        for peer in self.data.links.peers_of(self.part.daemon):
            other = None if peer in ended else self._report_of(peer)
            listening = None if other is None else other.link
            if link is None or listening is None or not listening.endpoints:
                continue
            if known.get(peer) != listening.run_id:
                yield self._differs("unconnected", peer)


def _is_unnoticed(part: Part, report: PartReport) -> bool:
    """Whether the report of a part that has not ended should have changed its recorded state."""
    if report.attempt < part.attempt or report.phase == "lost":
        return False
    return part.state is not PartState.MISSING and report.phase != part.state.value


def _is_unprepared(part: Part, report: PartReport | None) -> bool:
    """Whether the machine has not begun to start a part, although it was requested."""
    if part.claimed or part.state is not PartState.PREPARING:
        return False
    return report is None or report.phase == "lost" or report.attempt < part.attempt
