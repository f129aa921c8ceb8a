"""What differs between the records of a coordinator and the reports of machines; pure.

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

LASTS: Final = 30.0
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
``starting``: its nodes have not connected yet. ``missing``: nothing of it runs.
``outdated``: the machine knows an earlier state of the whole dataflow. ``unconnected``: a link does
not know where its peer listens. ``unlinked``: two links do not reach each other. ``node``: a node
has failed. ``unknown``: a machine reports a part without a record."""

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
    "unreported": LASTS,
}
"""Seconds for which a difference lasts before it is repaired: messages may be under way. The other
kinds are only named."""
NAMED_AFTER: Final[Mapping[Kind, float]] = {"unconfirmed": 0.0, "node": 0.0}
"""Seconds for which a difference lasts before it is named; `LASTS` for other kinds."""


@dataclass(frozen=True, slots=True)
class RecordedPart:
    machine: str
    nodes: tuple[str, ...]
    state: PartState
    attempt: int = 1
    claimed: bool = False
    reason: str | None = None
    """Why it is started again."""
    failed: tuple[tuple[str, str], ...] = ()
    """Nodes that had failed when it ended, with the reason."""
    peers: tuple[str, ...] = ()
    """Machines with which it exchanges messages and whose part has not ended."""


@dataclass(frozen=True, slots=True)
class RecordedDataflow:
    id: str
    label: str
    """Name or id, as commands take it."""
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
    """What differs, and the command that helps."""

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
        machine = reported.get(part.machine, _UNKNOWN)
        yield from _of_part(dataflow, part, machine, reported, now)
    if dataflow.wanted in ("starts", "runs"):
        for first, second, text in dataflow.unlinked:
            yield Difference("unlinked", dataflow.id, first, second, f"{text}; {_DOCTOR}")
    if dataflow.wanted == "starts" and dataflow.linked:
        waiting = [part for part in dataflow.parts if part.state is PartState.PREPARED]
        if waiting and len(waiting) == len(dataflow.parts):
            text = (
                f"all nodes wait to be released; `dora restart {dataflow.label}` starts them again"
            )
            yield Difference("unreleased", dataflow.id, waiting[0].machine, text=text)


_UNKNOWN: Final = ReportedMachine(connected=False)
_DOCTOR: Final = "`dora doctor cluster.yml` checks machines and ports"


def _of_part(
    dataflow: RecordedDataflow,
    part: RecordedPart,
    machine: ReportedMachine,
    reported: Mapping[str, ReportedMachine],
    now: float,
) -> Iterator[Difference]:
    if not machine.connected:
        if part.state is not PartState.ENDED and dataflow.wanted in ("starts", "runs"):
            yield _away(dataflow, part, machine, now)
        return
    report = machine.parts.get(dataflow.id)
    alive = report is not None and report.phase in _LIVE
    if dataflow.wanted in ("stops", "ended") or part.state is PartState.ENDED:
        yield from _of_ending(dataflow, part, report, alive=alive)
    elif report is not None and _is_unnoticed(part, report):
        text = (
            f'machine "{part.machine}" reports nodes {", ".join(part.nodes)} as {report.phase}, '
            f"not {part.state}; `dora restart {dataflow.label}` starts all again"
        )
        yield Difference("unnoticed", dataflow.id, part.machine, text=text)
    elif _is_unprepared(part, report):
        text = (
            f'machine "{part.machine}" has not begun to start nodes {", ".join(part.nodes)}; '
            f"`dora restart {dataflow.label}` starts all again"
        )
        yield Difference("unprepared", dataflow.id, part.machine, text=text)
    elif report is None or not alive:
        yield from _without_report(dataflow, part)
    else:
        yield from _of_running(dataflow, part, report, reported)
        yield from _of_nodes(dataflow, part, machine)


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


def _away(
    dataflow: RecordedDataflow, part: RecordedPart, machine: ReportedMachine, now: float
) -> Difference:
    since = f" for {show_age(now - machine.away_since)}" if machine.away_since else ""
    text = (
        f'machine "{part.machine}" has not been connected{since} (nodes {", ".join(part.nodes)}); '
        f"{_DOCTOR}, `dora stop {dataflow.label}` gives it up"
    )
    return Difference("away", dataflow.id, part.machine, text=text)


def _of_ending(
    dataflow: RecordedDataflow, part: RecordedPart, report: PartReport | None, *, alive: bool
) -> Iterator[Difference]:
    """Yield what differs in a part that has ended or is to end."""
    if alive and report is not None and not report.stopped:
        text = (
            f'nodes {", ".join(part.nodes)} still run on machine "{part.machine}"; '
            f"`dora stop {dataflow.label} --force` kills them"
        )
        yield Difference("unstopped", dataflow.id, part.machine, text=text)
    elif report is None and part.state is not PartState.ENDED:
        yield _unreported(dataflow, part)
    if dataflow.wanted == "runs" and part.state is PartState.ENDED:
        for node, reason in part.failed:
            yield _failed(dataflow, part, node, reason)


def _failed(dataflow: RecordedDataflow, part: RecordedPart, node: str, why: str) -> Difference:
    text = f'node "{node}" has failed: {why}; `dora node restart {node}` starts it again'
    return Difference("node", dataflow.id, part.machine, node, text)


def _unreported(dataflow: RecordedDataflow, part: RecordedPart) -> Difference:
    text = (
        f'machine "{part.machine}" does not report nodes {", ".join(part.nodes)}; '
        f"`dora restart {dataflow.label}` starts all again"
    )
    return Difference("unreported", dataflow.id, part.machine, text=text)


def _without_report(dataflow: RecordedDataflow, part: RecordedPart) -> Iterator[Difference]:
    if part.state is PartState.MISSING:
        yield _missing(dataflow, part)
    elif part.claimed:
        text = (
            f'machine "{part.machine}" has no record of nodes {", ".join(part.nodes)}, which '
            f"other machines name; `dora restart {dataflow.label}` starts them"
        )
        yield Difference("unconfirmed", dataflow.id, part.machine, text=text)
    else:
        yield _unreported(dataflow, part)


def _missing(dataflow: RecordedDataflow, part: RecordedPart) -> Difference:
    why = f" ({part.reason})" if part.reason else ""
    text = (
        f'nodes {", ".join(part.nodes)} are started again and again on machine "{part.machine}"'
        f"{why}; `dora logs {dataflow.label}` shows their output"
    )
    return Difference("missing", dataflow.id, part.machine, text=text)


def _of_running(
    dataflow: RecordedDataflow,
    part: RecordedPart,
    report: PartReport,
    reported: Mapping[str, ReportedMachine],
) -> Iterator[Difference]:
    if part.state is PartState.MISSING:
        yield _missing(dataflow, part)
        return
    if report.phase == "lost" and report.attempt >= part.attempt:
        yield _unreported(dataflow, part)
        return
    if report.phase == "preparing":
        text = (
            f'nodes {", ".join(part.nodes)} on machine "{part.machine}" have not connected yet; '
            f"`dora logs {dataflow.label}` shows their output"
        )
        yield Difference("starting", dataflow.id, part.machine, text=text)
    if report.phase == "prepared" and dataflow.wanted == "runs":
        text = f'nodes on machine "{part.machine}" wait to be released'
        yield Difference("unreleased", dataflow.id, part.machine, text=text)
    if report.changes < dataflow.changes and report.attempt == part.attempt:
        text = f'machine "{part.machine}" does not know the last change of the dataflow'
        yield Difference("outdated", dataflow.id, part.machine, text=text)
    link = report.link
    known = {} if link is None else {peer.machine: peer.run_id for peer in link.peers}
    for peer in part.peers:
        other = reported.get(peer, _UNKNOWN).parts.get(dataflow.id)
        listening = None if other is None else other.link
        if link is None or listening is None or not listening.endpoints:
            continue
        if known.get(peer) != listening.run_id:
            text = f'machine "{part.machine}" does not know where "{peer}" listens'
            yield Difference("unconnected", dataflow.id, part.machine, peer, text)


def _of_nodes(
    dataflow: RecordedDataflow, part: RecordedPart, machine: ReportedMachine
) -> Iterator[Difference]:
    for node in machine.nodes.get(dataflow.id, ()):
        if node.status == "Failed" and not node.dynamic:
            yield _failed(dataflow, part, node.node, node.error or "see its log")
