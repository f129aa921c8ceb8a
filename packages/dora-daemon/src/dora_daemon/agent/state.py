"""State machine of the daemon's agent: the parts on this machine and what is done about them; pure.

The coordinator sends what should run, runners report what runs. A change that the next daemon
process needs is saved before it is reported.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, assert_never

from dora_config.protocol.daemon import (
    ConnectPart,
    DaemonLeaving,
    DescribePart,
    EndDaemon,
    ForgetPart,
    LogChunk,
    PartHistory,
    PartLost,
    PartReport,
    PreparePart,
    ReadHistory,
    ReleasePart,
    StopPart,
    StreamLogs,
)
from dora_config.protocol.runner import (
    AcknowledgeResult,
    DataflowFinished,
    DataflowResult,
    DataflowStarted,
    LinkChanged,
    NodesChanged,
    NodesReady,
    Release,
    RunnerEvent,
    RunnerStatus,
    ShutDown,
    WaitingChanged,
)
from dora_config.protocol.runner_events import (
    DataflowStopping,
    LogLine,
    LogLinesDropped,
    NodeConnected,
    NodeEnded,
    NodeFailed,
    NodeRestarting,
    NodeSpawned,
)
from dora_config.protocol.topics import StreamTopics, TopicChunk
from dora_daemon.agent.commands import (
    AdoptRunner,
    Command,
    Connect,
    DropPart,
    ExitDaemon,
    KillRunner,
    OpenInspector,
    OpenLogs,
    SavePart,
    SendHistory,
    SendToCoordinator,
    SendToRunner,
    StartLater,
    StartRecorders,
    StartRunner,
    WriteLog,
)
from dora_daemon.agent.events import (
    CoordinatorAway,
    CoordinatorConnected,
    CoordinatorLost,
    CoordinatorNotice,
    DaemonStarted,
    Event,
    HandoverRequested,
    MachineStopping,
    NodeNotAdded,
    NodesRead,
    PartDue,
    PartRelinked,
    RecorderNotice,
    RecorderSettled,
    RecordingRequested,
    RevisionChanged,
    RunFound,
    RunnerConnected,
    RunnerEnded,
    RunnerNotice,
    RunnerPlaced,
    RunnerRefused,
    RunnerReported,
)
from dora_daemon.agent.parts.part import TRIES, LocalPart
from dora_daemon.agent.records import PartRecord, cause_of

KEPT_ENDED = 200
"""Records of ended parts that are kept, so that their logs can be found."""
SHUTDOWN_GRACE = 10.0
"""Seconds for nodes to end when the machine stops; systemd waits for 90."""


class AgentState:
    """Changes only in :meth:`handle`; the other public methods read."""

    def __init__(self, records: Iterable[PartRecord] = (), recorded: Iterable[str] = ()) -> None:
        """Begin with the ``records`` of an earlier daemon process.

        ``recorded``: dataflows with a recording that has not ended.
        """
        self._recorded = set(recorded)
        self._parts = {record.dataflow_id: LocalPart(record) for record in records}
        self._adopted: set[str] = set()
        """Parts of an earlier daemon process whose runners have not answered or ended yet."""
        self._coordinator: Literal["awaited", "connected", "away"] = "awaited"
        self._away_text = ""
        self._ending = False
        self._left_with_machine: set[str] | None = None
        """Parts whose runners have not ended yet, when the machine stops."""

    def reports(self) -> tuple[PartReport, ...]:
        """Return the reports for a registration."""
        known = (part for part in self._parts.values() if not part.record.forgotten)
        return tuple(part.report() for part in known)

    def records(self) -> tuple[PartRecord, ...]:
        """Return all records that the next daemon process needs."""
        return tuple(part.record for part in self._parts.values())

    def record(self, dataflow_id: str) -> PartRecord | None:
        """Return the record of a part that has a runner."""
        part = self._live(dataflow_id)
        return None if part is None or part.lost is not None else part.record

    def waiting(self) -> list[tuple[PartRecord, float]]:
        """Return the parts of which nothing runs, and when each is started (see `LocalPart`)."""
        lost = [part for part in self._parts.values() if part.lost is not None]
        return [(part.record, part.due) for part in lost]

    def is_live(self, dataflow_id: str) -> bool:
        """Whether a part of this dataflow has not ended."""
        return self._live(dataflow_id) is not None

    def handle(self, event: Event, now: float) -> list[Command]:
        """Change the state and return the commands that follow; ``now`` is Unix time."""
        match event:
            case DaemonStarted():
                return [*self._prune(), *self._adopt(now)]
            case RunFound(record=record):
                found = self._parts[record.dataflow_id] = LocalPart(record)
                return [AdoptRunner(record), found.report_state()]
            case (
                RunnerPlaced()
                | RunnerConnected()
                | RunnerRefused()
                | RunnerReported()
                | RunnerEnded()
                | NodesRead()
                | NodeNotAdded()
                | RevisionChanged()
            ):
                return [*self._handle_runner(event, now), *self._settle(event.dataflow_id)]
            case CoordinatorConnected() | CoordinatorLost() | CoordinatorAway() | PartDue():
                return self._handle_coordinator(event, now)
            case PreparePart():
                return self._prepare(event)
            case ConnectPart():
                return self._connect(event)
            case ReleasePart():
                return self._release(event)
            case StopPart():
                return self._stop(event, now)
            case ForgetPart(dataflow_id=dataflow_id, attempt=attempt):
                part = self._parts.get(dataflow_id)
                if part is None or part.record.attempt > attempt:
                    return []
                if part.live and part.lost is None:
                    return []
                return [self._forget(part, now), *self._prune()]
            case DescribePart(dataflow_id=dataflow_id):
                part = self._live(dataflow_id)
                if part is None:
                    return []
                return [part.report_description(), part.report_state()]
            case PartRelinked(dataflow_id=dataflow_id, attempt=attempt, links=links):
                part = self._live(dataflow_id)
                if part is None or part.record.attempt != attempt:
                    return []
                return part.relink(links, now)
            case StreamLogs() | ReadHistory() | StreamTopics():
                return self._read(event)
            case RecordingRequested() | RecorderSettled():
                return self._handle_recorders(event, now)
            case EndDaemon():
                return self._end(now)
            case MachineStopping():
                return self._stop_with_machine()
            case HandoverRequested():
                return [SendToCoordinator(DaemonLeaving(hand_over=True)), ExitDaemon()]
            case _ as unreachable:
                assert_never(unreachable)

    def _read(self, request: StreamLogs | ReadHistory | StreamTopics) -> list[Command]:
        part = self._parts.get(request.dataflow_id)
        match request:
            case StreamLogs(stream=stream):
                if part is None:
                    problem = "this machine no longer has logs of that dataflow"
                    chunk = LogChunk(stream=stream, done=True, problem=problem)
                    return [SendToCoordinator(chunk)]
                return [OpenLogs(part.record, request)]
            case ReadHistory(read=read):
                if part is None:
                    problem = "this machine no longer has a history of that dataflow"
                    return [SendToCoordinator(PartHistory(read=read, problem=problem))]
                live = part.live and part.refusal is None
                return [SendHistory(part.record, request, live=live)]
            case StreamTopics(stream=stream):
                if part is None or not part.live or not part.record.runtime_dir:
                    return [SendToCoordinator(TopicChunk(stream=stream, done=True))]
                return [OpenInspector(part.record, request)]
            case _ as unreachable:
                assert_never(unreachable)

    def _prune(self) -> list[Command]:
        """Drop the oldest records of ended parts whose results the coordinator has stored."""
        records = [part.record for part in self._parts.values() if part.record.forgotten]
        records.sort(key=lambda record: record.ended_at)
        dropped = [record.dataflow_id for record in records[: max(0, len(records) - KEPT_ENDED)]]
        for dataflow_id in dropped:
            del self._parts[dataflow_id]
        return [DropPart(dataflow_id) for dataflow_id in dropped]

    def _live(self, dataflow_id: str) -> LocalPart | None:
        part = self._parts.get(dataflow_id)
        return part if part is not None and part.live else None

    # ------------------------------------------------------------------- recordings

    def _handle_recorders(self, event: RecorderNotice, now: float) -> list[Command]:
        part = self._live(event.dataflow_id)
        match event:
            case RecordingRequested(dataflow_id=dataflow_id):
                self._recorded.add(dataflow_id)
                if part is None or not part.connected:
                    return []
                return self._start_recorders(part, new_attempt=False)
            case RecorderSettled():
                if part is None or part.recorders != "starting":
                    return []
                part.recorders = "settled"
                return self._prepared(part, now) if part.ready else []
            case _ as unreachable:
                assert_never(unreachable)

    def _start_recorders(self, part: LocalPart, *, new_attempt: bool) -> list[Command]:
        record = part.record
        if record.spec.recording is None and record.dataflow_id not in self._recorded:
            return []
        part.recorders = "starting"
        return [StartRecorders(record, new_attempt)]

    # ------------------------------------------------------------------- adoption

    def _adopt(self, now: float) -> list[Command]:
        commands: list[Command] = []
        for dataflow_id, part in list(self._parts.items()):
            if part.live and part.record.runtime_dir:
                self._adopted.add(dataflow_id)
                commands.append(AdoptRunner(part.record))
            elif part.live:
                commands += self._lose(part, "the daemon ended before its runner started", now)
        return commands if self._adopted else [*commands, Connect()]

    def _settle(self, dataflow_id: str) -> list[Command]:
        if dataflow_id not in self._adopted:
            return []
        self._adopted.remove(dataflow_id)
        return [] if self._adopted else [Connect()]

    # ------------------------------------------------- starts without the coordinator

    def _handle_coordinator(self, event: CoordinatorNotice, now: float) -> list[Command]:
        match event:
            case CoordinatorConnected():
                self._coordinator = "connected"
                return []
            case CoordinatorLost():
                self._coordinator = "awaited"
                return []
            case CoordinatorAway(seconds=seconds):
                self._coordinator = "away"
                self._away_text = f"the coordinator has been away for {seconds:g} s"
                prepared = [
                    SendToRunner(key, Release())
                    for key, part in self._parts.items()
                    if part.record.phase == "prepared" and self._starts_alone(part)
                ]
                lost = [part for part in self._parts.values() if part.lost is not None]
                return [*prepared, *(c for part in lost for c in self._start_alone(part, now))]
            case PartDue(dataflow_id=dataflow_id, starts=starts):
                part = self._live(dataflow_id)
                if part is None or part.lost is None or part.record.starts != starts:
                    return []
                return self._start_alone(part, now)
            case _ as unreachable:
                assert_never(unreachable)

    def _starts_alone(self, part: LocalPart) -> bool:
        """Whether the machine starts the part if the coordinator stays away."""
        if self._coordinator == "connected" or self._ending:
            return False
        return part.record.starts_alone and part.stop is None and part.next is None

    def _is_tried_again(self, part: LocalPart, now: float) -> bool:
        """Whether a part whose nodes failed soon after a start alone is started once more."""
        return part.fails_soon(now)

    def _hold(self, part: LocalPart, lost: PartLost, now: float) -> list[Command]:
        """Keep a part of which nothing runs until it is started again, here or by request."""
        record = part.record
        part.connected, part.link, part.lost = False, None, lost.reason
        log = WriteLog("warning", f"dataflow {record.dataflow_id}: {lost.reason}")
        part.same_since = 0.0
        if not self._starts_alone(part):
            # the coordinator may not have read the last change yet
            described = [part.report_description()] if record.revision else []
            return [log, *described, SendToCoordinator(lost)]
        pause = part.note_failure(now)
        if part.failures == TRIES and record.former is not None:
            changed = part.return_to_former(record.former)
            return [log, *changed, *self._start_alone(part, now)]
        if pause > 0:
            part.due = now + pause
            return [log, StartLater(record.dataflow_id, record.starts, pause)]
        return [log, *self._start_alone(part, now)]

    def _start_alone(self, part: LocalPart, now: float) -> list[Command]:
        if self._coordinator != "away" or self._left_with_machine is not None:
            return []
        if not self._starts_alone(part):
            return []
        return part.start_alone(self._away_text, now)

    # ------------------------------------------------------- messages of the coordinator

    def _prepare(self, message: PreparePart) -> list[Command]:
        part = self._live(message.dataflow_id)
        if (self._ending and part is None) or self._left_with_machine is not None:
            lost = PartLost(
                dataflow_id=message.dataflow_id,
                attempt=message.attempt,
                reason="the daemon is ending and does not start nodes",
            )
            return [SendToCoordinator(lost)]
        if part is None or part.lost is not None:
            return self._make(message)
        if part.record.attempt >= message.attempt:
            return [part.report_state()]
        part.next = message  # a node must not run twice: the old part ends first
        return [KillRunner(message.dataflow_id)]

    def _make(self, message: PreparePart) -> list[Command]:
        record = PartRecord.model_validate(message, from_attributes=True)
        before = self._parts.get(message.dataflow_id)
        if before is not None:  # the dataflow has run here, also if this attempt never does
            record = record.model_copy(update={"ran": before.record.ran})
        self._parts[message.dataflow_id] = LocalPart(record)
        return [SavePart(record), StartRunner(record)]

    def _connect(self, message: ConnectPart) -> list[Command]:
        part = self._live(message.dataflow_id)
        if part is None or part.record.attempt != message.attempt:
            return []
        return part.set_peers(message)

    def _release(self, message: ReleasePart) -> list[Command]:
        part = self._parts.get(message.dataflow_id)
        if part is None or part.record.attempt != message.attempt:
            return []
        if part.record.borrowed:
            return []  # its owner decides when its nodes start
        if part.record.phase == "prepared" and part.stop is None:
            return [SendToRunner(message.dataflow_id, Release())]
        return [part.report_state()]

    def _stop(self, message: StopPart, now: float) -> list[Command]:
        part = self._parts.get(message.dataflow_id)
        if part is None:
            reason = "the dataflow does not run on this machine"
            lost = PartLost(dataflow_id=message.dataflow_id, attempt=0, reason=reason)
            return [SendToCoordinator(lost)]
        part.next = None
        if not part.live:
            return [part.report_state()]
        return [part.save(stopping=True), *self._stop_runner(part, message, now)]

    def _stop_runner(self, part: LocalPart, stop: StopPart, now: float) -> list[Command]:
        if part.lost is None:
            return part.stop_runner(stop)
        result = DataflowResult(dataflow_id=part.record.dataflow_id)
        save = part.save(phase="ended", result=result, ended_at=now)
        return [save, part.report_state(), *self._exit_if_idle()]

    # ------------------------------------------------------------- events of runners

    def _handle_runner(self, event: RunnerNotice, now: float) -> list[Command]:
        part = self._parts.get(event.dataflow_id)
        if part is None or part.lost is not None:
            return []
        if self._left_with_machine is not None:
            if not isinstance(event, RunnerEnded):
                return []
            self._left_with_machine.discard(event.dataflow_id)
            return self._exit_with_machine()
        match event:
            case RunnerPlaced():
                save = part.save(
                    runtime_dir=event.runtime_dir,
                    runtime_token=event.runtime_token,
                    log_dirs=event.log_dirs,
                    where=event.where,
                    history_file=event.history_file,
                )
                return [save]
            case RunnerConnected(status=status):
                return self._connected(part, status, now)
            case RunnerRefused(reason=reason):
                return part.refuse(reason)
            case RunnerReported(event=reported):
                return self._reported(part, reported, now)
            case NodesRead(attempt=attempt):
                return part.update_nodes(event, now) if part.record.attempt == attempt else []
            case NodeNotAdded(attempt=attempt):
                return part.keep_log(event) if part.record.attempt == attempt else []
            case RevisionChanged(revision=revision):
                return part.read_nodes(revision)
            case RunnerEnded(reason=reason):
                return self._lose(part, reason, now)
            case _ as unreachable:
                assert_never(unreachable)

    def _connected(self, part: LocalPart, status: RunnerStatus, now: float) -> list[Command]:
        part.connected = True
        part.link = status.link
        part.only_virtual_left = status.only_virtual_left
        if status.phase == "finished" and status.result is not None:
            return self._finish(part, status.result, now)
        if part.record.stopping and status.phase != "stopping" and part.stop is None:
            # requested of an earlier daemon process, which may not have forwarded it
            part.stop = StopPart(dataflow_id=part.record.dataflow_id)
        if part.stop is not None:
            return part.stop_runner(part.stop)
        commands = [*part.catch_up(status), *part.send_peers()]
        if part.recorders == "none":
            commands += self._start_recorders(
                part, new_attempt=status.phase in ("starting", "ready")
            )
        match status.phase:
            case "ready":
                return [*commands, *self._prepared(part, now)]
            case "running":
                return [*commands, *part.advance("running", now)]
            case "starting" | "stopping" | "finished":
                return [*commands, part.report_state()]
            case _ as unreachable:
                assert_never(unreachable)

    def _reported(self, part: LocalPart, event: RunnerEvent, now: float) -> list[Command]:
        match event:
            case NodesReady():
                return self._prepared(part, now)
            case DataflowStarted():
                return part.advance("running", now)
            case DataflowFinished(result=result):
                return self._finish(part, result, now)
            case LinkChanged(report=report):
                return part.link_changed(report)
            case WaitingChanged(only_virtual_left=only_virtual_left):
                part.only_virtual_left = only_virtual_left
                return [part.report_state()] if part.live else []
            case (
                LogLine()
                | LogLinesDropped()
                | NodesChanged()
                | NodeSpawned()
                | NodeConnected()
                | NodeRestarting()
                | NodeEnded()
                | NodeFailed()
                | DataflowStopping()
            ):
                return []
            case _ as unreachable:
                assert_never(unreachable)

    def _prepared(self, part: LocalPart, now: float) -> list[Command]:
        """The nodes are at the start barrier, which opens at once without the coordinator."""
        commands = part.report_prepared(now)
        if self._coordinator == "away" and commands and self._starts_alone(part):
            commands.append(SendToRunner(part.record.dataflow_id, Release()))
        return commands

    def _finish(self, part: LocalPart, result: DataflowResult, now: float) -> list[Command]:
        """The runner ended with a result and waits until that is stored."""
        if not part.live:
            return []
        record = part.record
        acknowledge: list[Command] = []
        if not record.borrowed:
            acknowledge.append(SendToRunner(record.dataflow_id, AcknowledgeResult()))
        part.connected = False
        unreleased = record.phase in ("preparing", "prepared")
        if not result.ok and part.stop is None and not part.next:
            node, reason = cause_of(result, record.where)
            if self._starts_alone(part) and (unreleased or self._is_tried_again(part, now)):
                part.cause = reason if node is None else f'node "{node}" {reason}'
                return acknowledge  # its runner ends now
            if unreleased:
                return [*self._lose(part, reason, now, node, result), *acknowledge]
        save = part.save(phase="ended", result=result, ended_at=now)
        if part.next is not None:
            return [save, *acknowledge, *self._make(part.next)]
        return [save, *acknowledge, part.report_state(), *self._exit_if_idle()]

    def _lose(
        self,
        part: LocalPart,
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
        reason, part.cause = part.cause or reason, ""
        if record.stopping or record.borrowed:  # a recovery must not spawn it again
            result = result or DataflowResult(dataflow_id=record.dataflow_id, error=reason)
            save = part.save(phase="ended", result=result, ended_at=now)
            return [save, part.report_state(), *self._exit_if_idle()]
        lost = PartLost(
            dataflow_id=record.dataflow_id,
            attempt=record.attempt,
            reason=reason,
            node=node,
            result=result,
        )
        if record.ran:
            return self._hold(part, lost, now)
        log = WriteLog("warning", f"dataflow {record.dataflow_id}: {reason}")
        return [self._forget(part, now), log, SendToCoordinator(lost), *self._exit_if_idle()]

    def _forget(self, part: LocalPart, now: float) -> Command:
        """Report a part no more; its logs can still be requested."""
        record, part.lost = part.record, None
        if record.log_dirs:
            ended_at = record.ended_at or now
            return part.save(phase="ended", forgotten=True, result=None, ended_at=ended_at)
        del self._parts[record.dataflow_id]
        return DropPart(record.dataflow_id)

    # --------------------------------------------------------------------- the end

    def _stop_with_machine(self) -> list[Command]:
        """End runners without changing records: the next daemon process reports the parts as lost,
        as after a power failure.
        """
        live = {key: p for key, p in self._parts.items() if p.live and p.lost is None}
        self._left_with_machine = set(live)
        commands: list[Command] = [
            SendToRunner(key, ShutDown(grace=SHUTDOWN_GRACE)) if part.connected else KillRunner(key)
            for key, part in live.items()
        ]
        return [*commands, *self._exit_with_machine()]

    def _exit_with_machine(self) -> list[Command]:
        if self._left_with_machine:
            return []
        return [SendToCoordinator(DaemonLeaving(hand_over=True)), ExitDaemon()]

    def _end(self, now: float) -> list[Command]:
        if self._left_with_machine is not None:
            return [KillRunner(dataflow_id) for dataflow_id in self._left_with_machine]
        force = self._ending
        self._ending = True
        commands: list[Command] = []
        for dataflow_id, part in list(self._parts.items()):
            if not part.live:
                continue
            part.next = None
            stop = StopPart(dataflow_id=dataflow_id, force=force, reason="the daemon was ended")
            commands += [part.save(stopping=True), part.report_state()]
            if not part.record.links.whole and not force:
                text = f"dataflow {dataflow_id} also ends on its other machines"
                commands.append(WriteLog("info", text))
            commands += self._stop_runner(part, stop, now)
        return [*commands, *self._exit_if_idle()]

    def _exit_if_idle(self) -> list[Command]:
        if not self._ending or any(part.live for part in self._parts.values()):
            return []
        return [SendToCoordinator(DaemonLeaving(hand_over=False)), ExitDaemon()]
