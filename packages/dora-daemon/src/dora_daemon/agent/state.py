"""The agent's decisions: which parts this machine has and what is done about them; pure.

The coordinator says what should be, runners say what is. Every change that a successor must know is
saved before it is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from dora_config.protocol.builds import BuildEventsAck, BuildPart, CancelBuild
from dora_config.protocol.calls import RunnerCall
from dora_config.protocol.daemon import (
    Certificate,
    ConnectPart,
    CoordinatorMessage,
    DescribePart,
    EndDaemon,
    EndLogs,
    ForgetPart,
    HeartbeatAck,
    Leaving,
    LogChunk,
    MoreLogs,
    NewToken,
    PartChanged,
    PartDescribed,
    PartLost,
    PartReport,
    PreparePart,
    Registered,
    RegistrationRefused,
    ReleasePart,
    StopPart,
    StreamLogs,
)
from dora_config.protocol.links import LinkReport, SetLinkPeers
from dora_config.protocol.runner import (
    AcknowledgeResult,
    DataflowFinished,
    DataflowResult,
    DataflowStarted,
    LinkChanged,
    NodesReady,
    Release,
    RunnerEvent,
    RunnerStatus,
    ShutDown,
    StopAllNodes,
    WaitingChanged,
)
from dora_config.protocol.topics import EndTopics, MoreTopics, StreamTopics, TopicChunk
from dora_daemon.agent import commands
from dora_daemon.agent.commands import (
    AskRunner,
    CallRunner,
    CloseLogs,
    Command,
    DropPart,
    KillRunner,
    Log,
    MindBuild,
    MindWatch,
    OpenLogs,
    OpenWatch,
    ReadOn,
    SavePart,
    StartRunner,
    TellCoordinator,
)
from dora_daemon.agent.events import (
    CoordinatorSpoke,
    EndAsked,
    Event,
    HandOverAsked,
    MachineStops,
    RunnerGone,
    RunnerPlaced,
    RunnerReached,
    RunnerSpoke,
)
from dora_daemon.agent.records import PartRecord

SHUTDOWN_GRACE = 10.0
"""Seconds that nodes have to end when the machine stops; systemd waits for 90."""


@dataclass(slots=True)
class Part:
    """A part and what is to happen to it next."""

    record: PartRecord
    reached: bool = False
    """Its runner answers."""
    stop: StopPart | None = None
    next: PreparePart | None = None
    """Wanted in its place once nothing of it is left."""
    link: LinkReport | None = None
    """What its runner said of the link last."""
    only_virtual_left: bool = False
    """What its runner said of the nodes that are left."""
    connect: ConnectPart | None = None
    """All that its runner has to be told of its peers once it answers."""

    @property
    def live(self) -> bool:
        return self.record.is_live

    def report(self) -> PartReport:
        """Where it stands."""
        return self.record.report(self.link, only_virtual_left=self.only_virtual_left)


class AgentState:
    def __init__(self, records: Iterable[PartRecord] = ()) -> None:
        """``records``: what an earlier daemon process wrote down; its runners may still live."""
        self.parts = {record.dataflow_id: Part(record) for record in records}
        self._ending = False
        self._left_with_machine: set[str] | None = None
        """The machine stops: parts whose runners have not ended yet."""

    def reports(self) -> tuple[PartReport, ...]:
        """The status report that goes with a registration."""
        known = (part for part in self.parts.values() if not part.record.forgotten)
        return tuple(part.report() for part in known)

    def handle(self, event: Event, now: float) -> list[Command]:
        """What follows from ``event``; ``now`` is Unix time."""
        match event:
            case CoordinatorSpoke(message=message):
                return self._coordinator_spoke(message)
            case RunnerPlaced() | RunnerReached() | RunnerSpoke() | RunnerGone():
                part = self.parts.get(event.dataflow_id)
                if part is None:
                    return []
                if self._left_with_machine is not None:
                    return self._while_machine_stops(part, event)
                return self._about_runner(part, event, now)
            case EndAsked():
                return self._end()
            case MachineStops():
                return self._stop_with_machine()
            case HandOverAsked():
                leaving = TellCoordinator(Leaving(hand_over=True))
                return [leaving, commands.EndDaemon()]
            case _ as unreachable:
                assert_never(unreachable)

    # ---------------------------------------------------------------- from the coordinator

    def _coordinator_spoke(self, message: CoordinatorMessage) -> list[Command]:
        match message:
            case PreparePart():
                return self._prepare(message)
            case ReleasePart(dataflow_id=dataflow_id, attempt=attempt):
                part = self.parts.get(dataflow_id)
                if part is None or part.record.attempt != attempt:
                    return []
                if part.record.phase == "prepared" and part.stop is None:
                    return [AskRunner(dataflow_id, Release())]
                return [self._tell(part)]
            case StopPart():
                return self._stop(message)
            case ForgetPart(dataflow_id=dataflow_id, attempt=attempt):
                part = self.parts.get(dataflow_id)
                if part is None or part.live or part.record.attempt > attempt:
                    return []
                return [self._save(part, forgotten=True, result=None)]
            case DescribePart(dataflow_id=dataflow_id):
                part = self.parts.get(dataflow_id)
                if part is None or not part.live:
                    return []
                described = PartDescribed(
                    dataflow_id=dataflow_id, attempt=part.record.attempt, spec=part.record.spec
                )
                return [TellCoordinator(described), self._tell(part)]
            case StreamLogs(dataflow_id=dataflow_id, stream=stream):
                part = self.parts.get(dataflow_id)
                if part is None:
                    problem = "this machine has no logs of that dataflow any more"
                    chunk = LogChunk(stream=stream, done=True, problem=problem)
                    return [TellCoordinator(chunk)]
                return [OpenLogs(part.record, message)]
            case MoreLogs(stream=stream):
                return [ReadOn(stream)]
            case EndLogs(stream=stream):
                return [CloseLogs(stream)]
            case StreamTopics(dataflow_id=dataflow_id, stream=stream):
                part = self.parts.get(dataflow_id)
                if part is None or not part.live or not part.record.runtime_dir:
                    return [TellCoordinator(TopicChunk(stream=stream, done=True))]
                return [OpenWatch(part.record, message)]
            case MoreTopics() | EndTopics():
                return [MindWatch(message)]
            case BuildPart() | CancelBuild() | BuildEventsAck():
                return [MindBuild(message)]
            case RunnerCall():
                return [CallRunner(message)]
            case EndDaemon():
                return self._end()
            case ConnectPart():
                return self._connect(message)
            case Registered() | RegistrationRefused() | HeartbeatAck() | Certificate() | NewToken():
                return []
            case _ as unreachable:
                assert_never(unreachable)

    def _prepare(self, message: PreparePart) -> list[Command]:
        part = self.parts.get(message.dataflow_id)
        live = part is not None and part.live
        if (self._ending and not live) or self._left_with_machine is not None:
            lost = PartLost(
                dataflow_id=message.dataflow_id,
                attempt=message.attempt,
                reason="the daemon is ending and starts nothing more",
            )
            return [TellCoordinator(lost)]
        if part is not None and part.live:
            if part.record.attempt >= message.attempt:
                return [self._tell(part)]
            part.next = message  # each node exactly once: first nothing of the old may be left
            return [KillRunner(message.dataflow_id)]
        return self._make(message)

    def _make(self, message: PreparePart) -> list[Command]:
        record = PartRecord(
            dataflow_id=message.dataflow_id,
            attempt=message.attempt,
            spec=message.spec,
            machine=message.machine,
            recovers=message.recovers,
            whole=message.whole,
            edges=message.edges,
            addresses=message.addresses,
        )
        self.parts[message.dataflow_id] = Part(record)
        return [SavePart(record), StartRunner(record)]

    def _connect(self, message: ConnectPart) -> list[Command]:
        part = self.parts.get(message.dataflow_id)
        if part is None or not part.live or part.record.attempt != message.attempt:
            return []
        if not part.reached:
            part.connect = _merged(part.connect, message)
            return []
        request = SetLinkPeers(peers=message.peers, ended=message.ended)
        return [AskRunner(message.dataflow_id, request)]

    def _stop(self, message: StopPart) -> list[Command]:
        part = self.parts.get(message.dataflow_id)
        if part is None:
            lost = PartLost(
                dataflow_id=message.dataflow_id, attempt=0, reason="not on this machine"
            )
            return [TellCoordinator(lost)]
        part.next = None
        if not part.live:
            return [self._tell(part)]
        part.stop = message
        save = self._save(part, stopping=True)
        if part.reached:
            return [save, self._ask_stop(part, message)]
        # a runner that does not answer yet hears of the stop once it does
        return [save, KillRunner(message.dataflow_id)] if message.force else [save]

    def _ask_stop(self, part: Part, stop: StopPart) -> Command:
        request = StopAllNodes(grace=stop.grace, force=stop.force, reason=stop.reason)
        return AskRunner(part.record.dataflow_id, request)

    # --------------------------------------------------------------------- from runners

    def _about_runner(
        self,
        part: Part,
        event: RunnerPlaced | RunnerReached | RunnerSpoke | RunnerGone,
        now: float,
    ) -> list[Command]:
        match event:
            case RunnerPlaced():
                return [
                    self._save(
                        part,
                        runtime_dir=event.runtime_dir,
                        runtime_token=event.runtime_token,
                        log_dirs=event.log_dirs,
                        where=event.where,
                    )
                ]
            case RunnerReached(status=status):
                return self._runner_reached(part, status, now)
            case RunnerSpoke(event=spoken):
                return self._runner_spoke(part, spoken, now)
            case RunnerGone(reason=reason):
                return self._gone(part, reason, now)

    def _runner_reached(self, part: Part, status: RunnerStatus, now: float) -> list[Command]:
        part.reached = True
        part.link = status.link
        part.only_virtual_left = status.only_virtual_left
        if status.phase == "finished" and status.result is not None:
            return self._finished(part, status.result, now)
        if part.stop is not None:
            return [self._ask_stop(part, part.stop)]
        if part.record.stopping and status.phase != "stopping":
            # asked for before this daemon started, and the runner may not have heard of it
            stop = part.stop = StopPart(dataflow_id=part.record.dataflow_id)
            return [self._ask_stop(part, stop)]
        waiting, part.connect = part.connect, None
        commands = [] if waiting is None else self._connect(waiting)
        match status.phase:
            case "ready":
                return [*commands, *self._reached_phase(part, NodesReady())]
            case "running":
                started = DataflowStarted(dataflow_id=part.record.dataflow_id)
                return [*commands, *self._reached_phase(part, started)]
            case _:
                return [*commands, self._tell(part)] if part.link is not None else commands

    def _runner_spoke(self, part: Part, event: RunnerEvent, now: float) -> list[Command]:
        match event:
            case NodesReady() | DataflowStarted():
                return self._reached_phase(part, event)
            case DataflowFinished(result=result):
                return self._finished(part, result, now)
            case LinkChanged(report=report):
                news = _without_figures(part.link) != _without_figures(report)
                part.link = report
                return [self._tell(part)] if news and part.live else []
            case WaitingChanged(only_virtual_left=only_virtual_left):
                part.only_virtual_left = only_virtual_left
                return [self._tell(part)] if part.live else []
            case _:
                return []

    def _reached_phase(self, part: Part, event: NodesReady | DataflowStarted) -> list[Command]:
        if isinstance(event, DataflowStarted):
            return [self._save(part, phase="running"), self._tell(part)]
        if part.record.phase == "running":
            return []
        return [self._save(part, phase="prepared"), self._tell(part)]

    def _finished(self, part: Part, result: DataflowResult, now: float) -> list[Command]:
        """The runner ended with a result; it waits until that is stored."""
        if not part.live:
            return []
        record = part.record
        acknowledge = AskRunner(record.dataflow_id, AcknowledgeResult())
        part.reached = False
        if record.phase in ("preparing", "prepared") and part.stop is None and not part.next:
            node, reason = _cause(result, record.where)
            return [*self._gone(part, reason, now, node, result), acknowledge]
        save = self._save(part, phase="ended", result=result, ended_at=now)
        if part.next is not None:
            return [save, acknowledge, *self._make(part.next)]
        return [save, acknowledge, self._tell(part), *self._end_if_idle()]

    def _gone(
        self,
        part: Part,
        reason: str,
        now: float,
        node: str | None = None,
        result: DataflowResult | None = None,
    ) -> list[Command]:
        if not part.live:
            return []
        if part.next is not None:
            return self._make(part.next)
        record = part.record
        if record.stopping:  # it was to end, and has; nobody is to spawn it again
            result = result or DataflowResult(dataflow_id=record.dataflow_id, error=reason)
            save = self._save(part, phase="ended", result=result, ended_at=now)
            return [save, self._tell(part), *self._end_if_idle()]
        if record.log_dirs:  # its logs may still be asked for
            keep = self._save(part, phase="ended", forgotten=True, ended_at=now)
        else:
            del self.parts[record.dataflow_id]
            keep = DropPart(record.dataflow_id)
        lost = PartLost(
            dataflow_id=record.dataflow_id,
            attempt=record.attempt,
            reason=reason,
            node=node,
            result=result,
        )
        log = Log("warning", f"dataflow {record.dataflow_id}: {reason}")
        return [keep, log, TellCoordinator(lost), *self._end_if_idle()]

    # --------------------------------------------------------------------- ending

    def _stop_with_machine(self) -> list[Command]:
        """Records stay as they are: the next daemon finds nothing and says so, as after a power
        failure.
        """
        live = [part for part in self.parts.values() if part.live]
        self._left_with_machine = {part.record.dataflow_id for part in live}
        return [*(self._shut_down(part) for part in live), *self._leave_with_machine()]

    def _shut_down(self, part: Part) -> Command:
        if part.reached:
            return AskRunner(part.record.dataflow_id, ShutDown(grace=SHUTDOWN_GRACE))
        return KillRunner(part.record.dataflow_id)

    def _while_machine_stops(
        self, part: Part, event: RunnerPlaced | RunnerReached | RunnerSpoke | RunnerGone
    ) -> list[Command]:
        assert self._left_with_machine is not None
        if not isinstance(event, RunnerGone):
            return []
        self._left_with_machine.discard(part.record.dataflow_id)
        return self._leave_with_machine()

    def _leave_with_machine(self) -> list[Command]:
        if self._left_with_machine:
            return []
        return [TellCoordinator(Leaving(hand_over=True)), commands.EndDaemon()]

    def _end(self) -> list[Command]:
        if self._left_with_machine is not None:
            return [KillRunner(dataflow_id) for dataflow_id in self._left_with_machine]
        force = self._ending
        self._ending = True
        out: list[Command] = []
        for part in self.parts.values():
            if not part.live:
                continue
            part.next = None
            part.stop = StopPart(
                dataflow_id=part.record.dataflow_id, force=force, reason="the daemon was ended"
            )
            out.append(self._save(part, stopping=True))
            out.append(self._tell(part))
            if not part.record.whole and not force:
                text = f"dataflow {part.record.dataflow_id} ends on its other machines too"
                out.append(Log("info", text))
            if part.reached:
                out.append(self._ask_stop(part, part.stop))
            elif force:
                out.append(KillRunner(part.record.dataflow_id))
        return [*out, *self._end_if_idle()]

    def _end_if_idle(self) -> list[Command]:
        if not self._ending or any(part.live for part in self.parts.values()):
            return []
        return [TellCoordinator(Leaving(hand_over=False)), commands.EndDaemon()]

    # --------------------------------------------------------------------- small steps

    def _save(self, part: Part, **changes: object) -> Command:
        part.record = part.record.model_copy(update=changes)
        return SavePart(part.record)

    def _tell(self, part: Part) -> Command:
        return TellCoordinator(PartChanged(report=part.report()))


def _merged(earlier: ConnectPart | None, later: ConnectPart) -> ConnectPart:
    if earlier is None:
        return later
    peers = {peer.machine: peer for peer in (*earlier.peers, *later.peers)}
    ended = dict.fromkeys((*earlier.ended, *later.ended))
    return later.model_copy(update={"peers": tuple(peers.values()), "ended": tuple(ended)})


def _without_figures(report: LinkReport | None) -> LinkReport | None:
    """What is worth telling at once; round trips ride on heartbeats."""
    if report is None:
        return None
    figures = {"rtt_us": None, "clock_offset_us": None}
    peers = tuple(peer.model_copy(update=figures) for peer in report.peers)
    return report.model_copy(update={"peers": peers})


def _cause(result: DataflowResult, where: str) -> tuple[str | None, str]:
    """The node and the sentence that say best why nothing came of a start."""
    if result.error is not None:
        return None, f"{result.error}\n({where})" if where else result.error
    for node in result.root_causes:
        return node.node, node.message
    return None, "all its nodes ended before the dataflow had started"
