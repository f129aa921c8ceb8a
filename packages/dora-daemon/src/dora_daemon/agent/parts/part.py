"""State of one part, and the commands that follow from its changes; pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from dora_config.protocol import daemon as messages
from dora_config.protocol.calls import PartLinks
from dora_config.protocol.dataflow import WholeDataflow
from dora_config.protocol.links import SetLinkPeers
from dora_config.protocol.runner import RunnerState, StopAllNodes
from dora_config.retry import Retry, RetryPolicy
from dora_daemon.agent import commands as do
from dora_daemon.agent.events import NodeNotAdded, NodesRead
from dora_daemon.agent.records import FormerNodes, PartRecord

HEALTHY_SECONDS = 120.0
"""A loss of the part within these seconds after a start without the coordinator is a failure.
Nodes that ran for longer are stored as the ones to return to when they are changed."""
ALONE = RetryPolicy(longest=60.0)
"""Delays between starts of a failing part without the coordinator."""
CHANGED = RetryPolicy(longest=60.0, limit=2)
"""Delays while earlier nodes are stored; they are started after the last of these failures."""


@dataclass(slots=True)
class LocalPart:
    """A part of a dataflow, as recorded and as last reported by its runner."""

    record: PartRecord
    runner: RunnerState | None = None
    """State reported to this daemon; ``None``: its runner has not answered, or has ended."""
    refusal: str | None = None
    """Why the runner, of another version, refuses requests."""
    stop: messages.StopPart | None = None
    next: messages.PreparePart | None = None
    """Part that replaces this one once no process of this one is left."""
    lost: str | None = None
    """Why no process of the part runs, until the coordinator, or the machine alone, starts it."""
    due: float = 0.0
    """Unix time of its next start without the coordinator; 0: at the event `CoordinatorAway`."""
    cause: str = ""
    """Why its nodes failed; the reason of the loss when the runner has ended."""
    started_alone: float = 0.0
    """Unix time of its last start without the coordinator; 0: there was none."""
    retry: Retry = field(default_factory=Retry)
    """Losses in a row, each soon after a start without the coordinator."""
    same_since: float = 0.0
    """Unix time since which it has run with its present nodes; 0: it does not run."""
    recorders: Literal["none", "starting", "settled"] = "none"

    @property
    def live(self) -> bool:
        """Whether it has not ended."""
        return self.record.is_live

    @property
    def answers(self) -> bool:
        """Whether its runner takes requests."""
        return self.live and self.refusal is None

    def report(self) -> messages.PartReport:
        """Return its state for the coordinator."""
        record, runner = self.record, self.runner if self.live else None
        phase = "lost" if self.live and self.lost is not None else record.phase
        return messages.PartReport(
            dataflow_id=record.dataflow_id,
            attempt=record.attempt,
            phase="stopping" if self.live and record.stopping else phase,
            result=record.result,
            link=None if runner is None else runner.link,
            stopped=record.stopping,
            only_virtual_left=runner is not None and runner.only_virtual_left,
            revision=record.revision,
            problem=(self.lost or self.refusal) if self.live else None,
            name=record.spec.name,
            begun=record.whole.begun,
            changes=record.whole.changes,
        )

    def start_alone(self, why: str, now: float) -> list[do.Command]:
        """Start it again without the coordinator, within the same attempt."""
        record = self.record
        reason = f"{self.lost}; {why}"
        self.lost, self.started_alone, self.due = None, now, 0.0
        self.recorders = "none"
        starts = record.starts + 1
        save = self.save(phase="preparing", starts=starts, recovers=reason, runtime_dir="")
        return [save, do.StartRunner(self.record)]

    def fails_soon(self, now: float) -> bool:
        """Whether its last start without the coordinator is so recent that an end is a failure."""
        return self.started_alone > 0 and now - self.started_alone < HEALTHY_SECONDS

    def note_failure(self, now: float) -> float:
        """Return the seconds until the next start without the coordinator.

        Infinity: return to the nodes before the last change.
        """
        if self.fails_soon(now):
            return self.retry.failed(CHANGED if self.record.former else ALONE, now)
        self.retry.reset()
        return 0.0

    def return_to_former(self) -> list[do.Command]:
        """Replace the nodes by those before the last change; this counts as another change."""
        record, former, present = self.record, self.record.former, self.record.spec
        assert former is not None
        spec = former.spec.model_copy(update={"params": present.params, "stopped": present.stopped})
        links = former.links.model_copy(update={"whole": record.links.whole})
        revision = record.revision + 1
        failures = CHANGED.limit + 1
        text = f"it failed {failures} times: its nodes are again those before their last change"
        log = do.WriteLog("warning", f"dataflow {record.dataflow_id}: {text}")
        self.lost = f"{self.lost}; {text}"
        return [log, self.save(spec=spec, links=links, former=None, revision=revision)]

    def _kept(self, now: float) -> dict[str, FormerNodes]:
        """Return the field that stores the present nodes, if they ran for `HEALTHY_SECONDS`."""
        since, self.same_since = self.same_since, now
        if not since or now - since < HEALTHY_SECONDS:
            return {}
        former = FormerNodes(spec=self.record.spec, links=self.record.links)
        return {"former": former}

    def save(self, **changes: object) -> do.Command:
        """Change the record; return the command that stores it."""
        self.record = self.record.model_copy(update=changes)
        return do.SavePart(self.record)

    def report_state(self) -> do.Command:
        """Return the command that sends the report to the coordinator."""
        return do.SendToCoordinator(messages.PartChanged(report=self.report()))

    def report_description(self) -> do.Command:
        """Return the command that sends the nodes as they are now."""
        record = self.record
        described = messages.PartDescribed(
            dataflow_id=record.dataflow_id,
            attempt=record.attempt,
            spec=record.spec,
            revision=record.revision,
            lost=self.lost is not None,
            whole=record.whole,
        )
        return do.SendToCoordinator(described)

    def relink(self, links: PartLinks, whole: WholeDataflow | None, now: float) -> list[do.Command]:
        """Store other links and send them to the runner, now or when one connects.

        ``whole``: a new description of all parts of the dataflow.
        """
        record = self.record
        if links == record.links:
            if whole is None or whole == record.whole:
                return []
            return [self.save(whole=whole), self.report_state()]
        kept = self._kept(now) if links.edges != record.links.edges else {}
        known = record.whole if whole is None else whole
        save = self.save(relinked=True, links=links, whole=known, **kept)
        sent = [] if self.runner is None else [do.SetRunnerLinks(self.record)]
        return [save, *sent, *([] if whole is None else [self.report_state()])]

    def update_nodes(self, read: NodesRead, now: float) -> list[do.Command]:
        """Store and report the nodes of the runner, so that a recovery starts the same ones."""
        record, nodes = self.record, read.nodes
        if not self.live or nodes.revision == record.revision:
            return []
        spec = record.spec.with_current(nodes.nodes)
        if (spec.resolved, spec.code) == (record.spec.resolved, record.spec.code):
            spec, kept = record.spec, {}
        else:
            kept = self._kept(now)
        spec = spec.model_copy(update={"params": nodes.params, "stopped": nodes.stopped})
        log_dirs = {**record.log_dirs, **read.log_dirs}
        save = self.save(spec=spec, revision=nodes.revision, log_dirs=log_dirs, **kept)
        return [save, self.report_description()]

    def keep_log(self, failed: NodeNotAdded) -> list[do.Command]:
        """Store the log folder of a node that could not be added."""
        if not self.live:
            return []
        return [self.save(log_dirs={**self.record.log_dirs, failed.node: failed.log_dir})]

    def read_nodes(self, revision: int) -> list[do.Command]:
        """Read the nodes of the runner if its revision is another one."""
        record = self.record
        if revision == record.revision:
            return []
        return [do.ReadNodes(record.dataflow_id, record.attempt)]

    def advance(self, phase: Literal["prepared", "running"], now: float) -> list[do.Command]:
        """Report a later phase of the start."""
        if phase == "prepared" and self.record.phase == "running":
            return []
        ran = self.record.ran or phase == "running"
        if phase == "running":
            self.same_since = self.same_since or now
        return [self.save(phase=phase, ran=ran), self.report_state()]

    def report_prepared(self, now: float) -> list[do.Command]:
        """Report that the nodes are at the start barrier, unless recorders are being started."""
        return [] if self.recorders == "starting" else self.advance("prepared", now)

    def stop_runner(self, stop: messages.StopPart) -> list[do.Command]:
        """Stop now, or when the runner answers; a forced stop kills one that does not."""
        self.stop = stop
        dataflow_id = self.record.dataflow_id
        if self.runner is not None:
            request = StopAllNodes(grace=stop.grace, force=stop.force, reason=stop.reason)
            return [do.SendToRunner(dataflow_id, request)]
        if stop.force:
            return [do.SignalRunner(dataflow_id)]
        return [do.SignalRunner(dataflow_id, "SIGTERM")] if self.refusal is not None else []

    def refuse(self, reason: str) -> list[do.Command]:
        """Note that the runner refuses requests; report why, and how to replace it."""
        name = self.record.spec.name or self.record.dataflow_id
        remedy = "run it again" if self.record.borrowed else f"run `dora restart {name}`"
        self.refusal = f"{reason}; {remedy}"
        if self.stop is None and self.record.stopping:
            self.stop = messages.StopPart(dataflow_id=self.record.dataflow_id)
        return [self.report_state(), *([] if self.stop is None else self.stop_runner(self.stop))]

    def set_peers(self, later: messages.ConnectPart) -> list[do.Command]:
        """Store where peers listen, for this runner and later ones, and send it."""
        record = self.record
        renewed = {peer.machine for peer in later.peers}
        peers = {peer.machine: peer for peer in (*record.peers, *later.peers)}
        for machine in later.ended:
            peers.pop(machine, None)
        before = (machine for machine in record.ended_peers if machine not in renewed)
        ended = tuple(dict.fromkeys((*before, *later.ended)))
        save = self.save(peers=tuple(peers.values()), ended_peers=ended)
        if self.runner is None or not record.links.edges:  # no link yet
            return [save]
        request = SetLinkPeers(peers=later.peers, ended=later.ended)
        return [save, do.SendToRunner(record.dataflow_id, request)]

    def send_peers(self) -> list[do.Command]:
        """Send the runner where the peers of its link listened last."""
        record = self.record
        if not record.links.edges or not (record.peers or record.ended_peers):
            return []
        request = SetLinkPeers(peers=record.peers, ended=record.ended_peers)
        return [do.SendToRunner(record.dataflow_id, request)]

    def save_endpoint(self, state: RunnerState) -> list[do.Command]:
        """Store the address at which the peers find its link."""
        endpoints = () if state.link is None else state.link.endpoints
        if endpoints[:1] in ((), (self.record.link_endpoint,)):
            return []
        return [self.save(link_endpoint=endpoints[0])]
