"""Explains why a dataflow is in its state: events in, first cause and timeline out; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from dora_config.history import entries as happened
from dora_config.history.evidence import Evidence, TimedEvent, merged
from dora_config.history.explanation import Cause, Explanation, FlowProblem, Occurrence, Role
from dora_config.history.flow import FlowGraph
from dora_config.history.troubles import (
    LINK_SILENCE,
    PRIMARY,
    Kind,
    Trouble,
    Troubles,
    died,
    disk_is_full,
    on,
)
from dora_config.history.waiting import waits_for
from dora_config.protocol.runner_events import (
    DataflowStarted,
    DataflowStopping,
    NodeConnected,
    NodeEnded,
    NodeFailed,
    NodeRestarting,
    NodeSpawned,
)
from dora_config.yaml.quantities import show_age

INCIDENT_GAP: Final = 5.0
"""Seconds without trouble after which another trouble belongs to another incident."""
REPEATED_WITHIN: Final = 60.0
"""Seconds without trouble within which the same trouble continues the incident: a crash loop."""
CLOCK_TOLERANCE: Final = 0.5
"""Seconds by which corrected times of two machines may be wrong."""
SHOWN_BEFORE: Final = 5
"""Events before the cause that the timeline contains; without a cause, last events and warnings."""


_PHASES = {
    "rolling_back": "the start failed",
    "running": "runs on all machines",
    "recovering": "the coordinator was restarted and waits for the machines",
    "stopping": "is stopped",
    "finished": "ended",
    "failed": "ended",
}
"""Phases of a dataflow that the timeline shows."""


@dataclass(frozen=True, slots=True)
class Line:
    """Line of the timeline about one event."""

    text: str
    node: str | None = None
    machine: str | None = None
    problem: bool = False
    """Whether this is a failure; otherwise the system or a user acted."""


@dataclass(slots=True)
class Narrator:
    """Turns events in the order of time into lines."""

    _restarting: dict[str, int] = field(default_factory=dict)
    _waiting: dict[str, str] = field(default_factory=dict)

    def occurrence(self, timed: TimedEvent) -> Occurrence | None:
        """Return the line about an event; ``None`` for events that the timeline omits."""
        line = self._line(timed)
        if line is None:
            return None
        return Occurrence(
            at=timed.at,
            machine=line.machine or timed.machine or None,
            node=line.node,
            text=line.text,
            problem=line.problem,
        )

    def _line(self, timed: TimedEvent) -> Line | None:
        match timed.event:
            case NodeRestarting(node=node, reason=reason, delay=delay, restarts=count):
                self._restarting[node] = count
                when = f" in {delay:g} s" if delay else " at once"
                text = f"{reason}; restart {count}{when}"
                return Line(text, node, problem=timed.event.failed)
            case NodeSpawned() | NodeConnected():
                return self._node_started(timed.event)
            case NodeEnded(node=node, dynamic=dynamic):
                return Line("detached" if dynamic else "ended normally", node)
            case NodeFailed(result=result):
                self._restarting.pop(result.node, None)
                return Line(f"failed: {result.message}", result.node, problem=True)
            case happened.NodeWaits(node=node, text=None):
                return Line(f"over: {self._waiting.pop(node, 'it waited')}", node)
            case happened.NodeWaits(node=node, text=str(text)):
                self._waiting[node] = text
                return Line(text, node, problem=True)
            case DataflowStarted():
                return Line("started")
            case DataflowStopping(reason=reason, grace=grace):
                limit = f"; nodes have {grace:g} s to end" if grace else "; nodes are killed"
                return Line(f"stopping: {reason}{limit}")
            case _:
                return _runner_line(timed.event) or _coordinator_line(timed.event)

    def _node_started(self, event: NodeSpawned | NodeConnected) -> Line | None:
        if isinstance(event, NodeConnected) and event.node in self._restarting:
            count = self._restarting.pop(event.node)
            return Line(f"runs again after restart {count} (process {event.pid})", event.node)
        if isinstance(event, NodeConnected) and event.dynamic:
            return Line(f"attached (process {event.pid})", event.node)
        return None


def _runner_line(event: happened.HistoryEvent) -> Line | None:
    match event:
        case happened.RunBegan(recovered=str(reason)):
            return Line(f"its nodes are started again: {reason}")
        case happened.RunEnded(error=str(error)):
            return Line(f"no node was started: {error}", problem=True)
        case happened.RunnerDied(pid=pid):
            return Line(died(pid), problem=True)
        case happened.RunEnded(stop_reason=reason):
            return Line("all nodes have ended" + (f": {reason}" if reason else ""))
        case happened.RunnerWarned(text=text, node=node):
            return Line(text, node, problem=True)
        case happened.InputTimedOut(node=node, input=name, timeout=timeout):
            text = f'input "{name}" received nothing for {timeout:g} s'
            return Line(text, node, problem=True)
        case happened.InputRecovered(node=node, input=name):
            return Line(f'input "{name}" receives messages again', node)
        case happened.LinkPeerChanged(peer=peer, state="lost", reason=reason):
            cause = f": {reason}" if reason else ""
            return Line(f'lost the link to machine "{peer}"{cause}', problem=True)
        case happened.LinkPeerChanged(peer=peer, state="connected"):
            return Line(f'linked to machine "{peer}"')
        case _:
            return None


def _coordinator_line(event: happened.HistoryEvent) -> Line | None:
    match event:
        case happened.StartPlaced(placement=placement):
            where = ", ".join(
                f"{', '.join(nodes)} on {machine}" for machine, nodes in placement.items()
            )
            return Line(f"start requested: {where}")
        case happened.StartRefused(step=step, reason=reason):
            what = "the build failed" if step == "build" else "the start was refused"
            return Line(f"{what}: {reason}", problem=True)
        case happened.PhaseReached(phase=phase, reason=reason) if phase in _PHASES:
            text = _PHASES[phase] + (f": {reason}" if reason else "")
            return Line(text, problem=phase in ("rolling_back", "failed"))
        case happened.UserStop(force=force):
            return Line("a user requested a forced stop" if force else "a user requested the stop")
        case happened.MachineLost(machine=machine, silent=silent):
            manner = "closed" if silent is None else f"silent for {silent:.0f} s"
            return Line(f"connection to the machine lost ({manner})", None, machine, problem=True)
        case happened.MachineReturned(machine=machine):
            return Line("the machine is connected again", None, machine)
        case happened.PartUncontrolled(machine=machine, reason=None):
            return Line("the daemon controls the nodes again", None, machine)
        case happened.PartUncontrolled(machine=machine, reason=reason):
            return Line(str(reason), None, machine, problem=True)
        case happened.PartRecovering(machine=machine, nodes=nodes, reason=reason, delay=delay):
            when = "now"
            if delay is None:
                when = "when the machine is connected"
            elif delay > 0:
                when = f"in {delay:.0f} s"
            text = f"{reason}; its nodes ({', '.join(nodes)}) are started again {when}"
            return Line(text, None, machine, problem=True)
        case happened.PartRuns(machine=machine):
            return Line("its nodes run again", None, machine)
        case happened.RollOutFailed():
            return Line(_roll_out(event), problem=True)
        case _:
            return None


def _roll_out(event: happened.RollOutFailed) -> str:
    return f"the roll-out of generation {event.generation} failed: {event.reason}"


def explain(evidence: Evidence) -> Explanation:
    """Return the first cause of the present trouble, or of the last one."""
    events = merged(evidence)
    narrator, troubles = Narrator(), Troubles()
    lines: list[Occurrence | None] = []
    for index, timed in enumerate(events):
        troubles.handle(index, timed)
        lines.append(narrator.occurrence(timed))
    _add_present(troubles, evidence)
    incident = _unresolved(_last_incident(troubles.found, evidence.now))
    first = _first_cause(incident, _Graph(evidence))
    findings = () if evidence.ended else _findings(evidence, events)
    cause = None if first is None else _cause(first, incident)
    return Explanation(
        uuid=evidence.uuid,
        name=evidence.name,
        status=evidence.status,
        now=evidence.now,
        summary=_summary(evidence, events, cause, findings),
        cause=cause,
        timeline=tuple(_timeline(lines, first, incident)),
        findings=findings,
        waits_for=waits_for(evidence, events, troubles.open),
        notes=tuple(_notes(evidence, incident)),
    )


def _add_present(troubles: Troubles, evidence: Evidence) -> None:
    """Add and end the troubles that only the present state shows."""
    for one in evidence.machines:
        if one.silent is not None and one.connected and not evidence.ended:
            begins = evidence.now - one.silent
            text = f'machine "{one.machine}" has not answered for {one.silent:.0f} s'
            trouble = Trouble("machine", one.machine, begins, evidence.now, text, None, one.machine)
            troubles.begin(trouble)
        if one.full_disk is None:
            times = [entry.at - one.clock_offset for entry in one.entries]
            troubles.end("disk", one.machine, max(times, default=evidence.now))
        else:
            text = disk_is_full(one.machine, f"no space is left in {one.full_disk}")
            now = evidence.now
            troubles.begin(Trouble("disk", one.machine, now, now, text, None, one.machine))
    for trouble in troubles.open:
        if trouble.node is not None and evidence.has_removed(trouble.node, trouble.machine):
            troubles.end(trouble.kind, trouble.subject, trouble.at)


def _last_incident(found: Iterable[Trouble], now: float) -> list[Trouble]:
    """Return the troubles that overlap, follow each other closely or repeat, up to the last one."""
    ordered = sorted(found, key=lambda one: (one.begins, one.reported_by))
    first, end = 0, float("-inf")
    last: dict[tuple[Kind, str], tuple[float, int]] = {}
    """End of the last such trouble, and where its incident begins, by key."""
    for index, trouble in enumerate(ordered):
        over, beginning = last.get(trouble.key, (float("-inf"), index))
        if trouble.kind in PRIMARY and trouble.begins <= over + REPEATED_WITHIN:
            first = min(first, beginning)
        elif trouble.begins > end + INCIDENT_GAP:
            first = index
        until = max(now if trouble.until is None else trouble.until, trouble.at)
        last[trouble.key] = (until, first)
        end = max(end, until)
    return ordered[first:]


def _unresolved(incident: list[Trouble]) -> list[Trouble]:
    """Omit ended waits of nodes if a trouble continues, because they do not explain it."""
    if all(one.until is not None for one in incident):
        return incident
    return [one for one in incident if one.kind != "wait" or one.until is None]


@dataclass(frozen=True, slots=True)
class _Graph:
    """Graph of the nodes, to find those upstream of another one."""

    evidence: Evidence

    def upstream(self, node: str) -> set[str]:
        """Return the nodes from which messages can reach ``node``."""
        sources: dict[str, set[str]] = {}
        for edge in self.evidence.edges:
            target = edge.target.partition("/")[0]
            sources.setdefault(target, set()).add(edge.source.partition("/")[0])
        found: set[str] = set()
        waiting = [node]
        while waiting:
            for source in sources.get(waiting.pop(), ()):
                if source not in found:
                    found.add(source)
                    waiting.append(source)
        return found

    def explains(self, cause: Trouble, effect: Trouble) -> bool:
        """Return whether one trouble can have led to another that was noticed."""
        match effect.kind:
            case "link":
                return cause.machine in (effect.machine, effect.peer)
            case "wait":
                return cause.node == effect.node
            case "input":
                nodes = self.upstream(effect.node or "")
                machines = {self.evidence.machine_of.get(one) for one in nodes}
                if cause.node is not None:
                    return cause.node in nodes
                return cause.machine in machines | {effect.machine}
            case _:
                return True


def _first_cause(incident: Sequence[Trouble], graph: _Graph) -> Trouble | None:
    """Return the first trouble, or a cause of it that was detected later."""
    if not incident:
        return None
    first = incident[0]
    primary = [one for one in incident if one.kind in PRIMARY]
    if first.kind not in PRIMARY:
        late = LINK_SILENCE if first.kind == "link" else CLOCK_TOLERANCE
        for one in primary:
            if one.begins <= first.at + late and graph.explains(one, first):
                return one
        return first
    if first.kind == "node":
        for one in primary:
            close = one.begins <= first.begins + CLOCK_TOLERANCE
            apart = one.machine != first.machine
            upstream = one.node in graph.upstream(first.node or "") - {first.node}
            if close and apart and one.kind == "node" and upstream:
                return one
    return first


def _cause(first: Trouble, incident: Sequence[Trouble]) -> Cause:
    over = [one.until for one in incident]
    resolved = None if None in over else max((at for at in over if at is not None), default=None)
    return Cause(
        at=first.begins if first.kind == "machine" else first.at,
        machine=first.machine or None,
        node=first.node,
        text=first.text,
        stderr=first.stderr,
        resolved_at=resolved,
    )


def _timeline(
    lines: Sequence[Occurrence | None], first: Trouble | None, incident: Sequence[Trouble]
) -> Iterable[Occurrence]:
    """Yield the events of the incident, and the last ones before it.

    Without an incident, yield the last events, and the last warnings before them.
    """
    if first is None:
        known = [one for one in lines if one is not None]
        yield from [one for one in known[:-SHOWN_BEFORE] if one.problem][-SHOWN_BEFORE:]
        yield from known[-SHOWN_BEFORE:]
        return
    reported = [one.reported_by for one in incident if one.reported_by >= 0]
    start = min(reported, default=len(lines))
    before = [one for one in lines[:start] if one is not None]
    yield from before[-SHOWN_BEFORE:]
    for index, one in enumerate(lines[start:], start):
        if one is not None:
            yield one.model_copy(update={"role": _role(one, index, first.reported_by)})


def _role(one: Occurrence, index: int, cause: int) -> Role:
    if index == cause:
        return "cause"
    return "consequence" if one.problem else "reaction"


def _findings(evidence: Evidence, events: Sequence[TimedEvent]) -> tuple[FlowProblem, ...]:
    began = [timed.at for timed in events if isinstance(timed.event, DataflowStarted)]
    running_for = evidence.now - min(began) if began else 0.0
    return FlowGraph(evidence, running_for).findings()


def _summary(
    evidence: Evidence,
    events: Sequence[TimedEvent],
    cause: Cause | None,
    findings: Sequence[FlowProblem],
) -> str:
    if cause is not None and cause.resolved_at is None:
        return cause.text
    stopped = None if evidence.ended else _stopped_alone(evidence, events)
    if stopped is not None:
        age = show_age(max(0.0, evidence.now - stopped.at))
        return f'a command on machine "{stopped.machine}" stopped its nodes {age} ago'
    if findings:
        return findings[0].text
    if not evidence.uuid and not evidence.name:
        return "the coordinator has no dataflows; start one: `dora start FILE`"
    if evidence.ended:
        return _ending(events) or "the dataflow ended normally"
    if cause is not None:
        return f"nothing is wrong now; the last trouble is over: {cause.text}"
    if evidence.reason is not None:
        return evidence.reason
    return f"nothing is wrong{_last_warning(events, evidence.now)}"


def _stopped_alone(evidence: Evidence, events: Sequence[TimedEvent]) -> TimedEvent | None:
    """Return the last stop of one machine's nodes while the dataflow runs on others."""
    stopped: dict[str | None, TimedEvent] = {}
    for timed in events:
        match timed.event:
            case DataflowStopping():
                stopped[timed.machine] = timed
            case DataflowStarted() | happened.RunBegan():
                stopped.pop(timed.machine, None)
            case happened.UserStop() | happened.PhaseReached(phase="stopping"):
                return None
            case _:
                pass
    placed = set(evidence.machine_of.values())
    return next((one for name, one in reversed(stopped.items()) if name in placed), None)


def _last_warning(events: Sequence[TimedEvent], now: float) -> str:
    """Return the last warning as the end of a sentence; empty without one."""
    for timed in reversed(events):
        if isinstance(timed.event, happened.RollOutFailed):
            return f"; {_roll_out(timed.event)} ({show_age(max(0.0, now - timed.at))} ago)"
        if isinstance(timed.event, happened.RunnerWarned):
            about = f'node "{timed.event.node}": ' if timed.event.node else ""
            age = show_age(max(0.0, now - timed.at))
            return f"; last warning{on(timed.machine)} ({age} ago): {about}{timed.event.text}"
    return ""


def _ending(events: Sequence[TimedEvent]) -> str | None:
    """Return why a dataflow without failures was stopped."""
    for timed in events:
        match timed.event:
            case happened.UserStop():
                return "the dataflow ended because a user stopped it"
            case DataflowStopping(reason=reason):
                return f"the dataflow ended because it was stopped: {reason}"
            case happened.PhaseReached(phase="stopping", reason=str(reason)):
                return f"the dataflow ended because it was stopped: {reason}"
            case _:
                pass
    return None


def _notes(evidence: Evidence, incident: Sequence[Trouble]) -> Iterable[str]:
    yield from evidence.notes
    for flow in (flow for one in evidence.machines for flow in one.edges if flow.uncompressed):
        yield f"{flow.source} -> {flow.target}: {flow.uncompressed}"
    for one in evidence.machines:
        if one.problem is not None:
            yield one.problem
        if one.dropped:
            where = f' of machine "{one.machine}"' if one.machine else ""
            yield f"{one.dropped} events{where} between the first and the last ones were not kept"
    machines = {one.machine for one in incident if one.kind == "node"}
    if len(machines) > 1:
        yield (
            "times of several machines are corrected by their clock offsets; their order is exact "
            f"to about {CLOCK_TOLERANCE:g} s"
        )
