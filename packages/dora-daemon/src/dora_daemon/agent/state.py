"""State machine of the daemon's agent, which decides about the parts on this machine; pure.

The coordinator sends what should run, runners report what runs. A change that the next daemon
process needs is saved before it is reported.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import chain
from typing import Literal

from dora_config.protocol import daemon as messages, runner as protocol
from dora_config.protocol.calls import LinkPart
from dora_daemon.agent import commands as do, events
from dora_daemon.agent.departure import Departure, leave
from dora_daemon.agent.parts.part import LocalPart
from dora_daemon.agent.parts.table import PartTable
from dora_daemon.agent.records import PartRecord, cause_of


class AgentState:
    """State of the agent. Only :meth:`handle` changes it; other services read ``parts``."""

    def __init__(self, records: Iterable[PartRecord] = (), recorded: Iterable[str] = ()) -> None:
        """Begin with the ``records`` of an earlier daemon process.

        ``recorded``: dataflows with a recording that has not ended.
        """
        self._recorded = set(recorded)
        self.parts = PartTable((record.dataflow_id, LocalPart(record)) for record in records)
        self._adopted: set[str] = set()
        """Parts of an earlier daemon process whose runners have not answered or ended yet."""
        self._coordinator: Literal["awaited", "connected", "away"] = "awaited"
        self._away_text = ""
        self._departure = Departure()

    def handle(self, event: events.Event, now: float) -> list[do.Command]:
        """Change the state and return the commands that follow; ``now`` is Unix time."""
        if isinstance(event, events.RunnerNotice):
            return [*self._handle_runner(event, now), *self._settle(event.dataflow_id)]
        if isinstance(event, events.CoordinatorNotice):
            return self._handle_coordinator(event, now)
        match event:
            case events.DaemonStarted():
                return [*self.parts.prune(), *self._adopt(now)]
            case events.RunFound(record=record):
                found = self.parts[record.dataflow_id] = LocalPart(record)
                return [do.AdoptRunner(record), found.report_state()]
            case messages.PreparePart():
                return self._prepare(event)
            case messages.ConnectPart():
                return self._connect(event)
            case messages.ReleasePart():
                return self._release(event)
            case messages.StopPart():
                return self._stop(event, now)
            case messages.ForgetPart(dataflow_id=dataflow_id, attempt=attempt):
                part = self.parts.get(dataflow_id)
                if part is None or part.record.attempt > attempt:
                    return []
                if part.live and part.lost is None:
                    return []
                return [self._forget(part, now, end_stored=True), *self.parts.prune()]
            case messages.DescribePart(dataflow_id=dataflow_id):
                part = self.parts.live(dataflow_id)
                return [] if part is None else [part.report_description(), part.report_state()]
            case LinkPart(dataflow_id=dataflow_id, attempt=attempt):
                part = self.parts.live(dataflow_id, attempt)
                return [] if part is None else part.relink(event.links, event.whole, now)
            case events.RecordingRequested() | events.RecorderSettled():
                return self._handle_recorders(event, now)
            case messages.EndDaemon():
                return self._end(now)
            case events.MachineStopping():
                return self._departure.stop_with_machine(self.parts)
            case events.HandoverRequested():
                return leave(hand_over=True)

    # ------------------------------------------------------------------- recordings

    def _handle_recorders(self, event: events.RecorderNotice, now: float) -> list[do.Command]:
        part = self.parts.live(event.dataflow_id)
        match event:
            case events.RecordingRequested(dataflow_id=dataflow_id):
                self._recorded.add(dataflow_id)
                if part is None or part.runner is None:
                    return []
                return self._start_recorders(part, new_attempt=False)
            case events.RecorderSettled():
                if part is None or part.recorders != "starting":
                    return []
                part.recorders = "settled"
                is_ready = part.runner is not None and part.runner.phase == "ready"
                if is_ready and part.record.phase == "preparing":
                    return self._prepared(part, now)
                return []

    def _start_recorders(self, part: LocalPart, *, new_attempt: bool) -> list[do.Command]:
        record = part.record
        if record.spec.recording is None and record.dataflow_id not in self._recorded:
            return []
        part.recorders = "starting"
        return [do.StartRecorders(record, new_attempt)]

    # ------------------------------------------------------------------- adoption

    def _adopt(self, now: float) -> list[do.Command]:
        commands: list[do.Command] = []
        for dataflow_id, part in list(self.parts.items()):
            if part.live and part.record.runtime_dir:
                self._adopted.add(dataflow_id)
                commands.append(do.AdoptRunner(part.record))
            elif part.live:
                commands += self._lose(part, "the daemon ended before its runner started", now)
        return commands if self._adopted else [*commands, do.Connect()]

    def _settle(self, dataflow_id: str) -> list[do.Command]:
        if dataflow_id not in self._adopted:
            return []
        self._adopted.remove(dataflow_id)
        return [] if self._adopted else [do.Connect()]

    # ------------------------------------------------- starts without the coordinator

    def _handle_coordinator(self, event: events.CoordinatorNotice, now: float) -> list[do.Command]:
        match event:
            case events.CoordinatorConnected():
                self._coordinator = "connected"
                return []
            case events.CoordinatorLost():
                self._coordinator = "awaited"
                return []
            case events.CoordinatorAway(seconds=seconds):
                self._coordinator = "away"
                self._away_text = f"the coordinator has been away for {seconds:g} s"
                prepared = [
                    do.SendToRunner(key, protocol.Release())
                    for key, part in self.parts.items()
                    if part.record.phase == "prepared" and self._starts_alone(part)
                ]
                started = (self._start_alone(part, now) for part in self.parts.lost())
                return [*prepared, *chain.from_iterable(started)]
            case events.PartDue(dataflow_id=dataflow_id, starts=starts):
                part = self.parts.live(dataflow_id)
                if part is None or part.lost is None or part.record.starts != starts:
                    return []
                return self._start_alone(part, now)

    def _starts_alone(self, part: LocalPart) -> bool:
        """Whether the machine starts the part if the coordinator stays away."""
        if self._coordinator == "connected" or self._departure.ending:
            return False
        return part.record.starts_alone and part.stop is None and part.next is None

    def _hold(self, part: LocalPart, lost: messages.PartLost, now: float) -> list[do.Command]:
        """Keep a part without processes until this machine or the coordinator starts it again."""
        record = part.record
        part.runner, part.lost = None, lost.reason
        log = do.WriteLog("warning", f"dataflow {record.dataflow_id}: {lost.reason}")
        part.same_since = 0.0
        if not self._starts_alone(part):
            # the coordinator may not have read the last change yet
            described = [part.report_description()] if record.revision else []
            return [log, *described, do.SendToCoordinator(lost)]
        pause = part.note_failure(now)
        if math.isinf(pause):
            return [log, *part.return_to_former(), *self._start_alone(part, now)]
        if pause > 0:
            part.due = now + pause
            return [log, do.StartLater(record.dataflow_id, record.starts, pause)]
        return [log, *self._start_alone(part, now)]

    def _start_alone(self, part: LocalPart, now: float) -> list[do.Command]:
        if self._coordinator != "away" or self._departure.left_with_machine is not None:
            return []
        if not self._starts_alone(part):
            return []
        return part.start_alone(self._away_text, now)

    # ------------------------------------------------------- messages of the coordinator

    def _prepare(self, message: messages.PreparePart) -> list[do.Command]:
        part = self.parts.live(message.dataflow_id)
        end = self._departure
        if end.left_with_machine is not None or (end.ending and part is None):
            lost = messages.PartLost(
                dataflow_id=message.dataflow_id,
                attempt=message.attempt,
                reason="the daemon is ending and does not start nodes",
            )
            return [do.SendToCoordinator(lost)]
        if part is None or part.lost is not None:
            return self._make(message)
        if part.record.attempt >= message.attempt:
            return [part.report_state()]
        part.next = message  # a node must not run twice: the old part ends first
        return [do.SignalRunner(message.dataflow_id)]

    def _make(self, message: messages.PreparePart) -> list[do.Command]:
        record = PartRecord.model_validate(message, from_attributes=True)
        before = self.parts.get(message.dataflow_id)
        if before is not None:  # the dataflow has run here, even if this attempt never does
            record = record.model_copy(update={"ran": before.record.ran})
        self.parts[message.dataflow_id] = LocalPart(record)
        return [do.SavePart(record), do.StartRunner(record)]

    def _connect(self, message: messages.ConnectPart) -> list[do.Command]:
        part = self.parts.live(message.dataflow_id, message.attempt)
        if part is None or part.record.borrowed:
            return []  # its owner sends it peers and certificates
        return part.set_peers(message)

    def _release(self, message: messages.ReleasePart) -> list[do.Command]:
        part = self.parts.get(message.dataflow_id)
        if part is None or part.record.attempt != message.attempt:
            return []
        if part.record.borrowed:
            return []  # its owner decides when its nodes start
        if part.record.phase == "prepared" and part.stop is None:
            return [do.SendToRunner(message.dataflow_id, protocol.Release())]
        return [part.report_state()]

    def _stop(self, message: messages.StopPart, now: float) -> list[do.Command]:
        part = self.parts.get(message.dataflow_id)
        if part is None:
            reason = "the dataflow does not run on this machine"
            lost = messages.PartLost(dataflow_id=message.dataflow_id, attempt=0, reason=reason)
            return [do.SendToCoordinator(lost)]
        part.next = None
        if not part.live:
            return [part.report_state()]
        return [part.save(stopping=True), *self._stop_runner(part, message, now)]

    def _stop_runner(
        self, part: LocalPart, stop: messages.StopPart, now: float
    ) -> list[do.Command]:
        if part.lost is None:
            return part.stop_runner(stop)
        result = protocol.DataflowResult(dataflow_id=part.record.dataflow_id)
        return self._ended(part, result, now)

    # ------------------------------------------------------------- events of runners

    def _handle_runner(self, event: events.RunnerNotice, now: float) -> list[do.Command]:
        part = self.parts.get(event.dataflow_id)
        if part is None or part.lost is not None:
            return []
        if self._departure.left_with_machine is not None:
            return self._departure.runner_ended_with_machine(event)
        match event:
            case events.RunnerPlaced():
                save = part.save(
                    runtime_dir=event.runtime_dir,
                    runtime_token=event.runtime_token,
                    log_dirs=event.log_dirs,
                    where=event.where,
                    history_file=event.history_file,
                )
                return [save]
            case events.RunnerChanged(state=state):
                return self._changed(part, state, now)
            case events.RunnerRefused(reason=reason):
                return part.refuse(reason)
            case events.NodesRead(attempt=attempt):
                return part.update_nodes(event, now) if part.record.attempt == attempt else []
            case events.NodeNotAdded(attempt=attempt):
                return part.keep_log(event) if part.record.attempt == attempt else []
            case events.RunnerEnded(reason=reason):
                return self._lose(part, reason, now)

    def _changed(
        self, part: LocalPart, state: protocol.RunnerState, now: float
    ) -> list[do.Command]:
        """Follow the state of a runner; the first state follows a new connection."""
        before, part.runner = part.runner, state
        if state.result is not None:
            return self._finish(part, state.result, now)
        if not part.live:
            return []
        commands: list[do.Command] = []
        if before is None:
            if part.record.stopping and state.phase != "stopping" and part.stop is None:
                # an earlier daemon process may have ended before it sent the stop
                part.stop = messages.StopPart(dataflow_id=part.record.dataflow_id)
            if part.stop is not None:
                return part.stop_runner(part.stop)
            if part.record.relinked:  # the earlier daemon process may not have completed it
                commands.append(do.SetRunnerLinks(part.record))
        if before is None or before.revision != state.revision:
            commands += part.read_nodes(state.revision)
        if before is None:
            commands += part.send_peers()
            if part.recorders == "none":
                is_start = state.phase in ("starting", "ready")
                commands += self._start_recorders(part, new_attempt=is_start)
        commands += part.save_endpoint(state)
        if state.phase in ("ready", "running") and (before is None or before.phase != state.phase):
            if state.phase == "ready":
                return [*commands, *self._prepared(part, now)]
            return [*commands, *part.advance("running", now)]
        if before is None or (before.link, before.only_virtual_left) != (
            state.link,
            state.only_virtual_left,
        ):
            commands.append(part.report_state())
        return commands

    def _prepared(self, part: LocalPart, now: float) -> list[do.Command]:
        """Report that the nodes are at the start barrier; open it if the coordinator is away."""
        commands = part.report_prepared(now)
        if self._coordinator == "away" and commands and self._starts_alone(part):
            commands.append(do.SendToRunner(part.record.dataflow_id, protocol.Release()))
        return commands

    def _finish(
        self, part: LocalPart, result: protocol.DataflowResult, now: float
    ) -> list[do.Command]:
        """Store the result of a runner, which waits for the acknowledgement before it ends."""
        if not part.live:
            return []
        record = part.record
        acknowledge: list[do.Command] = []
        if not record.borrowed:
            acknowledge.append(do.SendToRunner(record.dataflow_id, protocol.AcknowledgeResult()))
        part.runner = None
        # Prepared nodes end only after their release, even if "running" was too short to be seen.
        unreleased = record.phase == "preparing"
        if not result.ok and part.stop is None and not part.next:
            node, reason = cause_of(result, record.where)
            if self._starts_alone(part) and (unreleased or part.fails_soon(now)):
                part.cause = reason if node is None else f'node "{node}" {reason}'
                return acknowledge  # its runner ends now
            if unreleased:
                return [*self._lose(part, reason, now, node, result), *acknowledge]
        saved, *then = self._ended(part, result, now)
        return [saved, *acknowledge, *then]

    def _lose(
        self,
        part: LocalPart,
        reason: str,
        now: float,
        node: str | None = None,
        result: protocol.DataflowResult | None = None,
    ) -> list[do.Command]:
        if not part.live:
            return []
        if part.next is not None:
            return self._make(part.next)
        record = part.record
        reason, part.cause = part.cause or reason, ""
        if record.stopping or record.borrowed:  # a recovery must not spawn it again
            result = result or protocol.DataflowResult(dataflow_id=record.dataflow_id, error=reason)
            return self._ended(part, result, now)
        lost = messages.PartLost(
            dataflow_id=record.dataflow_id,
            attempt=record.attempt,
            reason=reason,
            node=node,
            result=result,
        )
        if record.ran:
            return self._hold(part, lost, now)
        log = do.WriteLog("warning", f"dataflow {record.dataflow_id}: {reason}")
        forgotten = [self._forget(part, now), log, do.SendToCoordinator(lost)]
        return [*forgotten, *self._departure.end_if_idle(self.parts)]

    def _ended(
        self, part: LocalPart, result: protocol.DataflowResult, now: float
    ) -> list[do.Command]:
        save = part.save(phase="ended", result=result, ended_at=now)
        if part.next is not None:
            return [save, *self._make(part.next)]
        return [save, part.report_state(), *self._departure.end_if_idle(self.parts)]

    def _forget(self, part: LocalPart, now: float, *, end_stored: bool = False) -> do.Command:
        """Remove a part from reports; its logs can still be requested."""
        record, part.lost = part.record, None
        if record.log_dirs:
            ended_at = record.ended_at or now
            return part.save(
                phase="ended",
                forgotten=True,
                end_stored=end_stored,
                result=None,
                ended_at=ended_at,
            )
        del self.parts[record.dataflow_id]
        return do.DropPart(record.dataflow_id)

    # --------------------------------------------------------------------- the end

    def _end(self, now: float) -> list[do.Command]:
        if (left := self._departure.left_with_machine) is not None:
            return [do.SignalRunner(dataflow_id) for dataflow_id in left]
        force, self._departure.ending = self._departure.ending, True
        commands: list[do.Command] = []
        for dataflow_id, part in list(self.parts.items()):
            if not part.live:
                continue
            part.next = None
            stop = messages.StopPart(
                dataflow_id=dataflow_id, force=force, reason="the daemon was ended"
            )
            commands += [part.save(stopping=True), part.report_state()]
            if not part.record.links.whole and not force:
                text = f"dataflow {dataflow_id} also ends on its other machines"
                commands.append(do.WriteLog("info", text))
            commands += self._stop_runner(part, stop, now)
        return [*commands, *self._departure.end_if_idle(self.parts)]
