"""Explains why a dataflow is in its state: events in, first cause and timeline out; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from dora_config.history import entries as happened
from dora_config.history.evidence import Evidence
from dora_config.history.explanation import Cause, Explanation, FlowProblem, Occurrence, Role
from dora_config.history.flow import Flow
from dora_config.history.merging import TimedEvent, merged
from dora_config.history.narrative import Narrator
from dora_config.history.troubles import (
    LINK_SILENCE,
    PRIMARY,
    Kind,
    Trouble,
    Troubles,
    disk_is_full,
    on,
)
from dora_config.history.waiting import waits_for
from dora_config.protocol.runner_events import DataflowStarted, DataflowStopping
from dora_config.yaml.quantities import show_age

INCIDENT_GAP: Final = 5.0
"""Seconds without trouble after which another trouble belongs to another incident."""
REPEATED_WITHIN: Final = 60.0
"""Seconds without trouble within which the same trouble continues the incident: a crash loop."""
CLOCK_TOLERANCE: Final = 0.5
"""Seconds by which corrected times of two machines may be wrong."""
SHOWN_BEFORE: Final = 5
"""Events before the cause that the timeline contains; without a cause, last events and warnings."""


def explain(evidence: Evidence) -> Explanation:
    """Return the first cause of the present trouble, or of the last one."""
    events = merged(evidence)
    narrator, troubles = Narrator(), Troubles()
    lines: list[Occurrence | None] = []
    for index, timed in enumerate(events):
        troubles.handle(index, timed)
        lines.append(narrator.occurrence(timed))
    _add_present(troubles, evidence)
    incident = _last_incident(troubles.found, evidence.now)
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
    """By key: the end of the last such trouble, and where its incident begins."""
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


@dataclass(frozen=True, slots=True)
class _Graph:
    """Which nodes are upstream of others."""

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
    return Flow(evidence, running_for).findings()


def _summary(
    evidence: Evidence,
    events: Sequence[TimedEvent],
    cause: Cause | None,
    findings: Sequence[FlowProblem],
) -> str:
    if cause is not None and cause.resolved_at is None:
        return cause.text
    if findings:
        return findings[0].text
    if evidence.ended:
        return _ending(events) or "the dataflow ended normally"
    if cause is not None:
        return f"nothing is wrong now; the last trouble is over: {cause.text}"
    if evidence.reason is not None:
        return evidence.reason
    return f"nothing is wrong{_last_warning(events, evidence.now)}"


def _last_warning(events: Sequence[TimedEvent], now: float) -> str:
    """Return the last warning of a runner as the end of a sentence; empty without one."""
    for timed in reversed(events):
        if isinstance(timed.event, happened.RunnerWarned):
            about = f'node "{timed.event.node}": ' if timed.event.node else ""
            age = show_age(max(0.0, now - timed.at))
            return f"; last warning{on(timed.machine)} ({age} ago): {about}{timed.event.text}"
    return ""


def _ending(events: Sequence[TimedEvent]) -> str | None:
    """Return why a dataflow without failures was stopped."""
    for timed in events:
        match timed.event:
            case happened.StopRequested():
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
