"""Troubles: failures and disturbances with their beginning and end; pure.

A trouble begins earlier than it is detected: a machine that is cut off is noticed after some
seconds of silence. Causes are ordered by their beginning.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Literal

from dora_config.history import entries as happened
from dora_config.history.evidence import TimedEvent
from dora_config.protocol.runner_events import (
    DataflowStarted,
    NodeConnected,
    NodeEnded,
    NodeFailed,
    NodeRestarting,
    NodeSpawned,
)

LINK_SILENCE: Final = 5.0
"""Longest time in seconds until a link detects that its peer does not answer."""
NO_SPACE: Final = "No space left on device"

Kind = Literal["node", "machine", "part", "version", "disk", "link", "input", "wait", "dataflow"]
PRIMARY: Final[frozenset[Kind]] = frozenset({"node", "machine", "part", "version", "disk"})
"""Kinds that can be a first cause; the others are usually consequences."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One failure or disturbance."""

    kind: Kind
    subject: str
    """Identifies the trouble together with ``kind``, also when it occurs again."""
    begins: float
    at: float
    """Time at which the trouble was detected."""
    text: str
    """A full sentence."""
    node: str | None = None
    machine: str | None = None
    peer: str | None = None
    """Machine at the other end of a link."""
    stderr: tuple[str, ...] = ()
    until: float | None = None
    """``None``: it is not over."""
    reported_by: int = -1
    """Index of the event; -1: it follows from the present state."""

    @property
    def key(self) -> tuple[Kind, str]:
        return (self.kind, self.subject)


@dataclass(slots=True)
class Troubles:
    """Collects troubles from events in the order of time."""

    found: list[Trouble] = field(default_factory=list)
    _open: dict[tuple[Kind, str], int] = field(default_factory=dict)

    def begin(self, trouble: Trouble) -> None:
        """Add a trouble, unless it already exists and has not ended."""
        if trouble.key not in self._open:
            self._open[trouble.key] = len(self.found)
            self.found.append(trouble)

    def end(self, kind: Kind, subject: str, at: float) -> None:
        """End a trouble; does nothing if it does not exist."""
        index = self._open.pop((kind, subject), None)
        if index is not None:
            self.found[index] = replace(self.found[index], until=at)

    @property
    def open(self) -> list[Trouble]:
        """Return the troubles that are not over, in the order in which they were detected."""
        return [self.found[index] for index in sorted(self._open.values())]

    def handle(self, index: int, timed: TimedEvent) -> None:
        """Add and end troubles after an event; ``index``: its position in the timeline."""
        new = partial(_trouble, index, timed)
        match timed.event:
            case NodeRestarting(node=node, failed=True, reason=reason, stderr_tail=stderr):
                self._node_failed(index, timed, node, reason, stderr)
            case NodeFailed(result=result) if result.outcome == "failed":
                self._node_failed(index, timed, result.node, result.message, result.stderr_tail)
            case NodeConnected(node=node) | NodeEnded(node=node):
                self.end("node", node, timed.at)
                self.end("wait", node, timed.at)
            case happened.NodeWaits(node=node, text=text):
                self.end("wait", node, timed.at)
                if text is not None:
                    sentence = f'node "{node}"{on(timed.machine)} {text}'
                    self.begin(new("wait", node, sentence, node=node))
            case NodeSpawned(node=node, restarts=0):
                self.end("node", node, timed.at)  # the whole part was started again
            case happened.RunBegan(recovered=str(reason)):
                text = f"the nodes{on(timed.machine)} were lost: {reason}"
                self.begin(new("part", timed.machine or "", text))
            case DataflowStarted():
                self.end("part", timed.machine or "", timed.at)
            case happened.RunnerDied(pid=pid):
                text = f"{died(pid)}{on(timed.machine)}"
                self.begin(new("part", timed.machine or "", text))
            case happened.RunEnded(error=str(error)):
                self.begin(new("dataflow", "", f"no node was started{on(timed.machine)}: {error}"))
            case happened.RunnerWarned(text=text) if NO_SPACE in text:
                self.begin(new("disk", timed.machine or "", disk_is_full(timed.machine, text)))
            case happened.InputTimedOut(node=node, input=name, timeout=timeout):
                text = (
                    f'input "{name}" of node "{node}"{on(timed.machine)} received nothing for '
                    f"{timeout:g} s (input_timeout)"
                )
                self.begin(new("input", f"{node}/{name}", text, noticed_after=timeout, node=node))
            case happened.InputRecovered(node=node, input=name):
                self.end("input", f"{node}/{name}", timed.at)
            case happened.LinkPeerChanged(peer=peer, state="lost", reason=reason):
                cause = f": {reason}" if reason else ""
                text = f'machine "{timed.machine}" lost its link to machine "{peer}"{cause}'
                subject = f"{timed.machine} - {peer}"
                self.begin(new("link", subject, text, noticed_after=LINK_SILENCE, peer=peer))
            case happened.LinkPeerChanged(peer=peer):
                self.end("link", f"{timed.machine} - {peer}", timed.at)
            case _:
                self._coordinator_event(index, timed)

    def _node_failed(
        self, index: int, timed: TimedEvent, node: str, reason: str, stderr: tuple[str, ...]
    ) -> None:
        self.end("node", node, timed.at)
        text = f'node "{node}"{on(timed.machine)} {reason}'
        self.begin(_trouble(index, timed, "node", node, text, node=node, stderr=stderr))

    def _coordinator_event(self, index: int, timed: TimedEvent) -> None:
        new = partial(_trouble, index, timed)
        match timed.event:
            case happened.MachineLost(machine=machine, silent=silent):
                manner = "its connection was closed"
                if silent is not None:
                    manner = f"it sent nothing for {silent:.0f} s"
                text = f'machine "{machine}" became unreachable: {manner}'
                noticed = silent or 0.0
                self.begin(new("machine", machine, text, noticed_after=noticed, machine=machine))
            case happened.MachineReturned(machine=machine):
                self.end("machine", machine, timed.at)
            case happened.PartUncontrolled(machine=machine, reason=str(reason)):
                text = f'the nodes on machine "{machine}" cannot be controlled: {reason}'
                self.begin(new("version", machine, text, machine=machine))
            case happened.PartUncontrolled(machine=machine):
                self.end("version", machine, timed.at)
            case happened.PartRecovering(machine=machine, reason=reason):
                text = f'the nodes on machine "{machine}" were lost: {reason}'
                self.begin(new("part", machine, text, machine=machine))
            case happened.PartRuns(machine=machine):
                self.end("part", machine, timed.at)
            case happened.StartRefused(step=step, reason=reason):
                what = "could not be built" if step == "build" else "could not be placed"
                self.begin(new("dataflow", "", f"the dataflow {what}: {reason}"))
            case happened.PhaseReached(phase="rolling_back" | "failed", reason=str(reason)):
                self.begin(new("dataflow", "", f"the dataflow failed: {reason}"))
            case _:
                pass


def _trouble(
    index: int,
    timed: TimedEvent,
    kind: Kind,
    subject: str,
    text: str,
    *,
    noticed_after: float = 0.0,
    machine: str | None = None,
    **more: Any,
) -> Trouble:
    """Return the trouble that an event reports ``noticed_after`` seconds after its beginning."""
    return Trouble(
        kind,
        subject,
        begins=timed.at - noticed_after,
        at=timed.at,
        text=text,
        machine=machine or timed.machine,
        reported_by=index,
        **more,
    )


def disk_is_full(machine: str | None, what: str) -> str:
    """Return the sentence about a full disk."""
    where = f' of machine "{machine}"' if machine else ""
    return f"the disk{where} is full: {what}"


def died(pid: int) -> str:
    """Return the sentence about a runner that left no result."""
    return (
        f"the runner (process {pid}) ended without a result: it was killed, or the machine was "
        "switched off"
    )


def on(machine: str | None) -> str:
    """Return the machine as part of a sentence; empty without one."""
    return f' on machine "{machine}"' if machine else ""
