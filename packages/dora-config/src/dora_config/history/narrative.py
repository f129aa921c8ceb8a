"""Sentences of the timeline; pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from dora_config.history import entries as happened
from dora_config.history.explanation import Occurrence
from dora_config.history.merging import TimedEvent
from dora_config.history.troubles import died
from dora_config.protocol.runner_events import (
    DataflowStarted,
    DataflowStopping,
    NodeConnected,
    NodeEnded,
    NodeFailed,
    NodeRestarting,
    NodeSpawned,
)

_PHASES = {
    "rolling_back": "the start failed",
    "running": "runs on all machines",
    "recovering": "the coordinator was restarted and waits for the machines",
    "stopping": "is stopped",
    "finished": "ended",
    "failed": "ended",
}
"""Phases of a dataflow that are worth a line."""


@dataclass(frozen=True, slots=True)
class Line:
    """Line of the timeline about one event."""

    text: str
    node: str | None = None
    machine: str | None = None
    problem: bool = False
    """Something went wrong; otherwise the system or a user acted."""


@dataclass(slots=True)
class Narrator:
    """Turns events in the order of time into lines."""

    _restarting: dict[str, int] = field(default_factory=dict)

    def occurrence(self, timed: TimedEvent) -> Occurrence | None:
        """Return the line about an event; ``None`` for events that are not worth one."""
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
        case happened.LinkPeerChanged(peer=peer, state="proven"):
            return Line(f'linked to machine "{peer}"')
        case _:
            return None


def _coordinator_line(event: happened.HistoryEvent) -> Line | None:
    match event:
        case happened.StartAccepted(placement=placement):
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
        case happened.StopRequested(force=force):
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
        case _:
            return None
