"""All dataflows of a coordinator and the events about them; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final
from uuid import UUID, uuid5

from dora_config.protocol import daemon as messages
from dora_config.protocol.dataflow import DataflowSpec, StartIdentity
from dora_coordinator.dataflow import events
from dora_coordinator.dataflow.adoption import (
    adopted,
    described_spec,
    extended,
    is_later,
    nodes_of_others,
)
from dora_coordinator.dataflow.data import DataflowContext
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.dataflow.differences import Difference
from dora_coordinator.dataflow.history import Before, ClusterHistory, daemon_of
from dora_coordinator.dataflow.index import DataflowIndex
from dora_coordinator.dataflow.reconcile import SWEEP_SECONDS, Reconciler
from dora_coordinator.settings import Settings
from dora_coordinator.state.commands import (
    ArmTimer,
    Command,
    DeleteRecord,
    Log,
    SaveRecord,
    SendToDaemon,
)
from dora_coordinator.state.events import StoreLoaded, TimerKey
from dora_coordinator.state.membership import Member, Membership
from dora_coordinator.state.records import Phase, new_record

_CHANGES_PARTS: Final = (events.PartAdded, events.PartGone, events.EndedPartChanged)
_STARTS: Final = (Phase.PREPARING, Phase.LINKING, Phase.ROLLING_BACK)
_ROUNDS: Final = 3
"""Most comparisons after one event: a repair may cause another difference."""
_PAUSE: Final = 0.5
"""Shortest time in seconds between comparisons of all parts."""
_CLOCK_STEP: Final = 1e-5
"""Seconds by which the time of a start exceeds that of an earlier start with a fast clock."""


class DataflowRegistry(DataflowIndex):
    """Passes events to their dataflows, and keeps indices and history up to date."""

    def __init__(
        self,
        settings: Settings,
        membership: Membership,
        *,
        wall_offset: float = 0.0,
        epoch: Callable[[], int] = lambda: 1,
    ) -> None:
        """``epoch``: of this coordinator."""
        self.settings = settings
        self.history = ClusterHistory(wall_offset)
        self._context = DataflowContext(membership, settings, wall_offset)
        super().__init__()
        self._next_number = 1
        self._just_ended: list[Dataflow] = []
        self._epoch = epoch
        self._latest = 0.0
        """Time of the latest start that was seen."""
        self._reconciler = Reconciler(membership, settings.recovery)
        self._touched: dict[tuple[str, str], None] = {}
        """Dataflows and daemons to compare after the present event; no daemon: all of them."""
        self._swept_at = float("-inf")
        self._armed_at: float | None = None
        """Time of the next comparison of everything."""

    # ------------------------------------------------------------------ dataflows

    def load(self, loaded: StoreLoaded, now: float) -> list[Command]:
        """Add the dataflows that an earlier coordinator stored, and the events that it wrote."""
        commands: list[Command] = []
        known = {record.dataflow_id: spec for record, spec in loaded.stored}
        self.history.load(loaded.history, known)
        for record, spec in sorted(loaded.stored, key=lambda pair: pair[0].number):
            dataflow = Dataflow(record, spec, self._context)
            self._next_number = record.number + 1
            self._latest = max(self._latest, record.begun.time)
            self._touched[dataflow.id, ""] = None
            commands += dataflow.handle(events.RecordLoaded(), now)
            commands += self.history.loaded(dataflow, record.phase, now)
            self._put(dataflow)
            if record.phase in _STARTS and dataflow.has_ended:
                commands += self._return_to_former(dataflow)
        return [*commands, *self._prune()]

    def start(
        self,
        dataflow_id: str,
        spec: DataflowSpec,
        placement: dict[str, tuple[str, ...]],
        now: float,
        *,
        restarts: Dataflow | None = None,
    ) -> list[Command]:
        """Add and start a new dataflow; ``placement`` maps daemons to node ids.

        ``restarts``: the one that it replaces.
        """
        self._latest = max(now + self._context.wall_offset, self._latest + _CLOCK_STEP)
        begun = StartIdentity(time=self._latest, epoch=self._epoch(), number=self._next_number)
        failed_try = restarts is not None and restarts.replaces and _failed_to_start(restarts)
        replaces = None if restarts is None else restarts.replaces if failed_try else restarts.id
        number = self._next_number
        record = new_record(dataflow_id, spec.name, placement, number, begun, replaces=replaces)
        self._next_number += 1
        dataflow = Dataflow(record, spec, self._context)
        self._put(dataflow)
        commands = [SaveRecord(record, spec), *self.history.start_accepted(dataflow, now)]
        if restarts is not None:
            dataflow.start_retry = restarts.start_retry
            dataflow.start_retry.failed(self.settings.recovery, now)
            commands += self.note_restart(restarts)
            if failed_try and restarts.has_ended_everywhere:
                commands += self._forget(restarts)
        for other in list(self._ended.values()):
            if spec.name and other.name == spec.name and other.may_resume:
                commands += self.apply(other, events.StopRequested(), now)  # replaced by this one
        return [*commands, *self.apply(dataflow, events.StartAccepted(), now)]

    def note_restart(self, dataflow: Dataflow) -> list[Command]:
        """Note that a dataflow was started again, or that its restart was given up."""
        dataflow.restart_as = dataflow.restart_spec = None
        self._to_restart.pop(dataflow.id, None)
        return [SaveRecord(dataflow.changed_record())]

    def apply(self, dataflow: Dataflow, event: events.DataflowEvent, now: float) -> list[Command]:
        """Pass an event to a dataflow, then update the indices."""
        before = dataflow.phase
        noted = Before.of(dataflow, event)
        parts = tuple(dataflow.parts) if isinstance(event, _CHANGES_PARTS) else ()
        commands = dataflow.handle(event, now)
        if before in _STARTS and dataflow.has_ended:
            commands += self._return_to_former(dataflow)
        self._touched[dataflow.id, daemon_of(event)] = None
        if parts and len(dataflow.parts) != len(parts):
            self._put(dataflow, parts)
        commands += self.history.changed(dataflow, event, noted, now)
        if dataflow.has_ended and not before.has_ended:
            self._just_ended.append(dataflow)
        if dataflow.phase is not before or dataflow.has_ended:
            self._put(dataflow)
            commands += self._prune()
        return commands

    def _return_to_former(self, failed: Dataflow) -> list[Command]:
        """Schedule the former dataflow to start again after its replacement failed to start."""
        former = self._dataflows.get(failed.replaces or "")
        if former is None or failed.stop_requested:
            return []
        if failed.spec == startable(former.spec) and not failed.was_interrupted:
            return []
        former.restart_as, failed.restart_as = str(uuid5(UUID(failed.id), "former")), None
        for one in (former, failed):
            self._put(one)
        self._just_ended.append(former)
        if not failed.was_interrupted:
            failed.reason = f"{failed.reason}; what ran before is started again"
        records = [SaveRecord(one.changed_record()) for one in (former, failed)]
        return [*records, Log("warning", f"dataflow {failed.label} failed: {failed.reason}")]

    def take_ended(self) -> list[Dataflow]:
        """Return the dataflows that have ended since the last call."""
        ended, self._just_ended = self._just_ended, []
        return ended

    def _prune(self) -> list[Command]:
        surplus = len(self._ended) - self.settings.archived_dataflows
        if surplus <= 0:
            return []
        ended = (d for d in self._ended.values() if not d.waits_to_restart)
        oldest = [d for d in ended if d.has_ended_everywhere][:surplus]
        return [command for dataflow in oldest for command in self._forget(dataflow)]

    def _forget(self, dataflow: Dataflow) -> list[Command]:
        self._remove(dataflow)
        self.history.forget(dataflow.id)
        return [DeleteRecord(dataflow.id)]

    def forget_ended(self) -> tuple[list[Dataflow], list[Command]]:
        """Remove the dataflows that have ended on all daemons."""
        gone = [
            dataflow
            for dataflow in self._ended.values()
            if dataflow.has_ended_everywhere and not dataflow.waits_to_restart
        ]
        return gone, [command for dataflow in gone for command in self._forget(dataflow)]

    # -------------------------------------------------------------------- daemons

    def daemon_registered(self, member: Member, now: float) -> list[Command]:
        """Compare the parts that a daemon reports with those expected on it."""
        commands: list[Command] = []
        for stored in member.register.stored_ends:
            live = None if stored.name is None else self._live_by_name.get(stored.name)
            self._latest = max(self._latest, stored.begun.time)
            if live is not None and is_later(stored, live):
                reason = f'a later start of it has ended on "{member.key}"'
                commands += self._supersede(live, reason, now)
        reported = {report.dataflow_id: report for report in member.register.parts}
        for report in reported.values():
            event = events.PartReported(
                member.key, report, registering=True, rebooted=member.rebooted
            )
            commands += self._part_reported(event, now)
        ends = {report.dataflow_id: report for report in member.register.stored_ends}
        for dataflow in self.unfinished_on(member.key):
            if dataflow.id in reported:
                continue
            absent: events.DataflowEvent = events.PartAbsent(member.key, member.rebooted)
            end = ends.get(dataflow.id)
            if end is not None and dataflow.parts[member.key].may_have_ended:
                absent = events.PartReported(member.key, end, registering=True, end_stored=True)
            commands += self.apply(dataflow, absent, now)
        return commands

    def daemon_lost(self, daemon: str, now: float, silent: float | None = None) -> list[Command]:
        """Handle the loss of a connection.

        ``silent``: seconds without a message before it; None: the connection was
        closed after a recent one.
        """
        commands: list[Command] = []
        for dataflow in self.unfinished_on(daemon):
            commands += self.apply(dataflow, events.DaemonLost(daemon, silent), now)
        return commands

    def daemon_resumed(self, daemon: str, silence: float, now: float) -> list[Command]:
        """Note that a daemon was silent for ``silence`` seconds; its connection continues."""
        return [
            command
            for dataflow in self.unfinished_on(daemon)
            for command in self.history.resumed(dataflow, daemon, silence, now)
        ]

    def machine_removed(self, daemon: str, now: float) -> list[Command]:
        """Stop the dataflows with a part on a removed machine; its peers end their links first."""
        commands: list[Command] = []
        for dataflow in self.unfinished_on(daemon):
            reason = f'machine "{daemon}" was removed from the cluster'
            commands += dataflow.parts.send_end_to_peers(dataflow.parts[daemon])
            commands.append(Log("warning", f"dataflow {dataflow.label} is stopped: {reason}"))
            stop = events.StopRequested(restart_as=dataflow.restart_as)
            commands += self.apply(dataflow, stop, now)
            commands += self.apply(dataflow, events.PartAbsent(daemon), now)
        return commands

    def part_message(
        self,
        daemon: str,
        message: messages.PartChanged | messages.PartLost | messages.PartDescribed,
        now: float,
    ) -> list[Command]:
        """Handle a daemon's message about one of its parts."""
        member = self._context.membership.get(daemon)
        match message:
            case messages.PartChanged(report=report):
                if member is not None:
                    member.parts[report.dataflow_id] = report
                return self._part_reported(events.PartReported(daemon, report), now)
            case messages.PartLost():
                if member is not None:
                    member.parts.pop(message.dataflow_id, None)
                dataflow = self._dataflows.get(message.dataflow_id)
                if dataflow is None or daemon not in dataflow.parts:
                    return []
                if dataflow.has_ended and message.attempt:  # the machine would start it again
                    return [dataflow.parts[daemon].kill()]
                return self.apply(dataflow, events.PartGone(daemon, message), now)
            case messages.PartDescribed():
                return self._described(daemon, message, now)

    def heartbeat(
        self, member: Member, reports: Iterable[messages.PartReport], now: float
    ) -> list[Command]:
        """Apply the differences to the last reports of a daemon."""
        before, member.parts = member.parts, {report.dataflow_id: report for report in reports}
        commands: list[Command] = []
        for dataflow_id, report in member.parts.items():
            if report != before.get(dataflow_id):
                commands += self._part_reported(events.PartReported(member.key, report), now)
        failed = {
            dataflow_id
            for dataflow_id, sample in member.metrics.items()
            if any(node.status == "Failed" for node in sample.nodes)
        }
        for dataflow_id in (before.keys() - member.parts.keys()) | failed:
            self._touched[dataflow_id, member.key] = None
        return commands

    def _part_reported(self, event: events.PartReported, now: float) -> list[Command]:
        daemon, report = event.daemon, event.report
        dataflow = self._dataflows.get(report.dataflow_id)
        if dataflow is not None and daemon in dataflow.parts:
            return self.apply(dataflow, event, now)
        if report.phase == "ended":
            forget = messages.ForgetPart(dataflow_id=report.dataflow_id, attempt=report.attempt)
            return [SendToDaemon(daemon, forget)]
        return [SendToDaemon(daemon, messages.DescribePart(dataflow_id=report.dataflow_id))]

    # ------------------------------------------------------------------- adoption

    def _described(self, daemon: str, message: messages.PartDescribed, now: float) -> list[Command]:
        known = self._dataflows.get(message.dataflow_id)
        if known is None:
            return self._adopt(daemon, message, now)
        newer = message.whole.changes > known.changes
        foreign = [] if newer else nodes_of_others(known, daemon, message.spec)
        if foreign:
            text = f'daemon "{daemon}" describes nodes of other machines: {", ".join(foreign)}'
            log = Log("error", f"dataflow {known.label}: {text}; ignored: examine that machine")
            return [log]
        if daemon in known.parts and not newer:
            return self.apply(known, events.NodesDescribed(daemon, message), now)
        if known.parts and message.whole.placement and not newer:
            # its part was removed while the machine was away
            stop = messages.StopPart(
                dataflow_id=known.id, force=True, reason="it was removed from the dataflow"
            )
            return [SendToDaemon(daemon, stop)]
        return self._extend(known, daemon, message, now)

    def _adopt(self, daemon: str, message: messages.PartDescribed, now: float) -> list[Command]:
        """Add a dataflow that the store does not contain (it was lost, or is older)."""
        dataflow_id, name = message.dataflow_id, message.spec.name
        begun = message.whole.begun.order(dataflow_id)
        other = None if name is None else self.latest_named(name)
        if other is not None and begun < other.begun.order(other.id):
            text = f'daemon "{daemon}" has a part of an earlier start of "{name}": stopped'
            stop = messages.StopPart(
                dataflow_id=dataflow_id, reason=f'a later start of "{name}" has replaced it'
            )
            return [Log("warning", text), SendToDaemon(daemon, stop)]
        record = adopted(daemon, message, self._next_number)
        self._next_number += 1
        self._latest = max(self._latest, message.whole.begun.time)
        dataflow = Dataflow(record, described_spec(daemon, message), self._context)
        commands = []
        if other is not None and not other.has_ended:
            commands += self._supersede(other, f"a later start of it runs: {dataflow_id}", now)
        if name:
            self._live_by_name[name] = dataflow
        self._put(dataflow)
        self._touched[dataflow.id, ""] = None
        text = f'adopted {dataflow.label} from daemon "{daemon}": it is not in the store'
        timer = ArmTimer(dataflow.timer("recovery"), now + self.settings.recovery_timeout)
        saved = SaveRecord(record, dataflow.spec)
        return [*commands, saved, Log("warning", text), timer]

    def _supersede(self, dataflow: Dataflow, reason: str, now: float) -> list[Command]:
        """Stop an earlier start of a dataflow."""
        text = f"dataflow {dataflow.label} is stopped: {reason}"
        stop = events.StopRequested(force=True, reason=reason)
        commands = [Log("warning", text), *self.apply(dataflow, stop, now)]
        for part in dataflow.parts.left():
            member = self._context.membership.get(part.daemon)
            if member is not None and member.connection and dataflow.id not in member.parts:
                commands += self.apply(dataflow, events.PartAbsent(part.daemon), now)
        return commands

    def _extend(
        self, known: Dataflow, daemon: str, message: messages.PartDescribed, now: float
    ) -> list[Command]:
        """Use a machine's newer description of a dataflow instead of the stored record."""
        record, spec, removed = extended(known, daemon, message)
        before = tuple(known.parts)
        dataflow = Dataflow(record, spec, self._context, known)
        if known.name and self._live_by_name.get(known.name) is known:
            del self._live_by_name[known.name]
        self._put(dataflow, before)
        self._touched[dataflow.id, ""] = None
        text = f'took over {dataflow.label} from daemon "{daemon}": the store is older'
        commands: list[Command] = [SaveRecord(record, spec, removed), Log("warning", text)]
        if known.phase is Phase.STOPPING or known.stop_requested:
            restart_as = None if known.has_ended else known.restart_as
            stop = events.StopRequested(known.grace, known.force, restart_as)
            commands += self.apply(dataflow, stop, now)
        return commands

    # ----------------------------------------------------------------- comparison

    def reconcile(self, now: float) -> list[Command]:
        """Repair what differs after the last event."""
        commands: list[Command] = []
        for _ in range(_ROUNDS):
            touched, self._touched = self._touched, {}
            for dataflow_id, daemon in touched:
                dataflow = self._dataflows.get(dataflow_id)
                if dataflow is not None:
                    for one in self._reconciler.compare(dataflow, daemon, now):
                        commands += self._repair(one, now)
        return [*commands, *self._arm(now)]

    def sweep(self, now: float) -> list[Command]:
        """Compare everything that is recorded with everything that is reported."""
        self._swept_at, self._armed_at = now, None
        commands = self._stop_replaced(now)
        due = self._reconciler.sweep(self._dataflows.values(), now)
        return [*commands, *(command for one in due for command in self._repair(one, now))]

    def _stop_replaced(self, now: float) -> list[Command]:
        """Stop the starts that a later one of the same name has replaced."""
        commands: list[Command] = []
        for dataflow in self.live():
            holder = self.live_named(dataflow.name or "")
            ends = dataflow.phase in (Phase.STOPPING, Phase.ROLLING_BACK)
            if holder is not None and holder is not dataflow and not ends:
                commands += self._supersede(dataflow, f"a later start of it runs: {holder.id}", now)
        return commands

    def _repair(self, one: Difference, now: float) -> list[Command]:
        member = self._context.membership.get(one.machine)
        report = None if member is None else member.parts.get(one.dataflow)
        dataflow = self._dataflows.get(one.dataflow)
        resumes = one.kind == "unstopped" and dataflow is not None and dataflow.unreported
        if resumes or one.kind in ("unknown", "unnoticed"):
            event = None if report is None else events.PartReported(one.machine, report)
            return [] if event is None else self._part_reported(event, now)
        if dataflow is None:
            return []
        if one.kind == "unreported":
            return self.apply(dataflow, events.PartAbsent(one.machine), now)
        return self.apply(dataflow, events.RepairDue(one.machine, one.kind), now)

    def _arm(self, now: float) -> list[Command]:
        """Arm the timer of the next comparison; without records, machines may still run nodes."""
        at = max(self._swept_at + SWEEP_SECONDS, now)
        if self._reconciler.wake_at is not None:
            at = min(at, max(self._reconciler.wake_at, now + _PAUSE))
        if self._armed_at is not None and self._armed_at <= at:
            return []
        self._armed_at = at
        return [ArmTimer(TimerKey("reconcile"), at)]

    def named(self, dataflow: Dataflow, now: float) -> list[str]:
        """Return the differences in a dataflow that are not repaired."""
        return self._reconciler.named(dataflow.id, now)


def startable(spec: DataflowSpec) -> DataflowSpec:
    """Return the specification of a dataflow for another start."""
    return spec.model_copy(update={"recording": None, "stopped": ()})


def _failed_to_start(dataflow: Dataflow) -> bool:
    return dataflow.reason is not None and not dataflow.released
