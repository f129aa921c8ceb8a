"""All dataflows and daemons of a coordinator, and which belong together; pure.

Nothing here is scanned per heartbeat: dataflows are indexed by daemon and by name.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator

from dora_config.errors import DoraError
from dora_config.protocol.control import DataflowRef, FailureCode
from dora_config.protocol.daemon import (
    DescribePart,
    ForgetPart,
    PartChanged,
    PartDescribed,
    PartLost,
    PartReport,
)
from dora_config.protocol.dataflow import DataflowSpec
from dora_coordinator.dataflow.backoff import Backoff
from dora_coordinator.dataflow.dataflow import Dataflow, DataflowContext
from dora_coordinator.dataflow.events import (
    DaemonLost,
    DataflowEvent,
    PartAbsent,
    PartGone,
    PartReported,
    StartAccepted,
    StopRequested,
)
from dora_coordinator.dataflow.records import (
    DataflowRecord,
    PartRecord,
    PartState,
    Phase,
    new_record,
)
from dora_coordinator.settings import Settings
from dora_coordinator.state.commands import Command, DeleteRecord, Log, SaveRecord, SendToDaemon
from dora_coordinator.state.membership import Member, Membership


class RequestRefused(DoraError):
    """A reference names no dataflow, or several."""

    def __init__(self, code: FailureCode, message: str) -> None:
        super().__init__(message)
        self.code: FailureCode = code


class DataflowRegistry:
    """Events go in, commands come out; ``changes`` collects dataflows whose phase (or what
    their start waits for) changed, with the phase before."""

    def __init__(self, settings: Settings, *, wall_offset: float = 0.0) -> None:
        self._settings = settings
        self.membership = Membership(
            answering_within=settings.daemon_silence_warning,
            silence_limit=settings.daemon_silence_limit,
            fresh_within=1.5 * settings.heartbeat_interval,
        )
        backoff = Backoff(settings.recovery_backoff)
        self._context = DataflowContext(self.membership, backoff, settings, wall_offset)
        self._dataflows: dict[str, Dataflow] = {}
        self._unfinished_by_daemon: dict[str, dict[str, Dataflow]] = {}
        self._live_by_name: dict[str, Dataflow] = {}
        self._live: dict[str, Dataflow] = {}
        self._ended: OrderedDict[str, Dataflow] = OrderedDict()
        self._next_number = 1
        self.changes: list[tuple[Dataflow, Phase]] = []

    # ------------------------------------------------------------------ dataflows

    def load(
        self, stored: Iterable[tuple[DataflowRecord, DataflowSpec]], now: float
    ) -> list[Command]:
        """Take over what an earlier coordinator stored."""
        commands: list[Command] = []
        for record, spec in sorted(stored, key=lambda pair: pair[0].number):
            dataflow = Dataflow(record, spec, self._context)
            self._next_number = record.number + 1
            commands += dataflow.resume(now)
            self._index(dataflow)
        return [*commands, *self._prune()]

    def start(
        self,
        dataflow_id: str,
        spec: DataflowSpec,
        placement: dict[str, tuple[str, ...]],
        now: float,
    ) -> list[Command]:
        record = new_record(dataflow_id, spec.name, placement, self._next_number)
        self._next_number += 1
        dataflow = Dataflow(record, spec, self._context)
        self._index(dataflow)
        commands: list[Command] = [SaveRecord(record, spec)]
        for other in list(self._ended.values()):
            if spec.name and other.name == spec.name and other.is_awaited:
                commands += self.apply(other, StopRequested(), now)  # this one takes its place
        return [*commands, *self.apply(dataflow, StartAccepted(), now)]

    def apply(self, dataflow: Dataflow, event: DataflowEvent, now: float) -> list[Command]:
        """Hand ``event`` to a dataflow and keep the indices in step."""
        before, awaited = dataflow.phase, dataflow.waits_for
        commands = dataflow.handle(event, now)
        if dataflow.phase is not before or dataflow.waits_for != awaited:
            self.changes.append((dataflow, before))
        if dataflow.phase is not before or dataflow.has_ended:
            self._index(dataflow)
            commands += self._prune()
        return commands

    def _index(self, dataflow: Dataflow) -> None:
        self._dataflows[dataflow.id] = dataflow
        if dataflow.has_ended:
            self._live.pop(dataflow.id, None)
            if dataflow.name and self._live_by_name.get(dataflow.name) is dataflow:
                del self._live_by_name[dataflow.name]
            self._ended.setdefault(dataflow.id, dataflow)
        else:
            self._ended.pop(dataflow.id, None)
            self._live[dataflow.id] = dataflow
            if dataflow.name:
                self._live_by_name.setdefault(dataflow.name, dataflow)
        for part in dataflow.parts.values():
            here = self._unfinished_by_daemon.setdefault(part.daemon, {})
            if part.ended:
                here.pop(dataflow.id, None)
            else:
                here[dataflow.id] = dataflow
            if not here:
                del self._unfinished_by_daemon[part.daemon]

    def _prune(self) -> list[Command]:
        surplus = len(self._ended) - self._settings.archived_dataflows
        if surplus <= 0:
            return []
        oldest = [d for d in self._ended.values() if not d.may_come_back][:surplus]
        return [command for dataflow in oldest for command in self._forget(dataflow)]

    def _forget(self, dataflow: Dataflow) -> list[Command]:
        del self._dataflows[dataflow.id]
        del self._ended[dataflow.id]
        return [DeleteRecord(dataflow.id)]

    def forget_ended(self) -> tuple[list[Dataflow], list[Command]]:
        """Forget the dataflows that have ended everywhere."""
        gone = [dataflow for dataflow in self._ended.values() if not dataflow.may_come_back]
        return gone, [command for dataflow in gone for command in self._forget(dataflow)]

    def __iter__(self) -> Iterator[Dataflow]:
        """All dataflows, oldest start first."""
        return iter(sorted(self._dataflows.values(), key=lambda dataflow: dataflow.number))

    def live(self) -> list[Dataflow]:
        return sorted(self._live.values(), key=lambda dataflow: dataflow.number)

    def unfinished_on(self, daemon: str) -> list[Dataflow]:
        """Dataflows of which a part has not ended there."""
        return list(self._unfinished_by_daemon.get(daemon, {}).values())

    def unfinished_daemons(self) -> list[str]:
        """Daemons on which a part of some dataflow has not ended."""
        return list(self._unfinished_by_daemon)

    def live_named(self, name: str) -> Dataflow | None:
        return self._live_by_name.get(name)

    def get(self, dataflow_id: str) -> Dataflow | None:
        return self._dataflows.get(dataflow_id)

    def find(self, ref: DataflowRef, *, archived: bool) -> Dataflow:
        """The dataflow meant by ``ref``; ``archived``: one that has ended will do.

        Raises :class:`RequestRefused`.
        """
        if ref.uuid is not None:
            found = self._dataflows.get(ref.uuid)
            if found is None:
                raise RequestRefused("not_found", f"no dataflow with UUID {ref.uuid}")
        elif ref.name is not None:
            return self._named(ref.name, archived=archived)
        else:
            return self._only_one(archived=archived)
        if found.has_ended and not archived and not found.is_awaited:
            raise RequestRefused(
                "not_found", f"dataflow {found.label} has ended already ({found.status()[0]})"
            )
        return found

    def _named(self, name: str, *, archived: bool) -> Dataflow:
        live = self._live_by_name.get(name)
        if live is not None:
            return live
        ended = [dataflow for dataflow in self._ended.values() if dataflow.name == name]
        fitting = [dataflow for dataflow in ended if archived or dataflow.is_awaited]
        if fitting:
            return max(fitting, key=lambda dataflow: dataflow.number)
        note = ""
        if ended:
            listed = ", ".join(f"{d.id} ({d.status()[0]})" for d in ended)
            note = f"; archived under this name: {listed}"
        raise RequestRefused(
            "not_found", f'no {"" if archived else "running "}dataflow with name "{name}"{note}'
        )

    def _only_one(self, *, archived: bool) -> Dataflow:
        if len(self._live) == 1:
            return next(iter(self._live.values()))
        if self._live:
            listed = ", ".join(dataflow.label for dataflow in self.live())
            raise RequestRefused(
                "ambiguous", f"several dataflows are running; name one of them: {listed}"
            )
        if archived and self._ended:
            return max(self._ended.values(), key=lambda dataflow: dataflow.number)
        raise RequestRefused("nothing_runs", "No dataflows are running.")

    # -------------------------------------------------------------------- daemons

    def registered(self, member: Member, now: float) -> list[Command]:
        """Compare a daemon's status report with what should run there."""
        commands: list[Command] = []
        reported = {report.dataflow_id: report for report in member.register.parts}
        for report in reported.values():
            commands += self._reported(member.key, report, registering=True, now=now)
        expected = list(self._unfinished_by_daemon.get(member.key, {}).values())
        for dataflow in expected:
            if dataflow.id not in reported:
                commands += self.apply(dataflow, PartAbsent(member.key), now)
        return commands

    def lost(self, member: Member, now: float) -> list[Command]:
        commands: list[Command] = []
        for dataflow in list(self._unfinished_by_daemon.get(member.key, {}).values()):
            commands += self.apply(dataflow, DaemonLost(member.key), now)
        if member.register.machine_id is None and member.key not in self._unfinished_by_daemon:
            self.membership.forget(member.key)
        return commands

    def told(
        self, daemon: str, message: PartChanged | PartLost | PartDescribed, now: float
    ) -> list[Command]:
        """A daemon spoke about one of its parts."""
        match message:
            case PartChanged(report=report):
                return self._reported(daemon, report, registering=False, now=now)
            case PartLost():
                dataflow = self._dataflows.get(message.dataflow_id)
                if dataflow is None:
                    return []
                event = PartGone(
                    daemon, message.attempt, message.reason, message.node, message.result
                )
                return self.apply(dataflow, event, now)
            case PartDescribed():
                return self._adopt(daemon, message, now)

    def _reported(
        self, daemon: str, report: PartReport, *, registering: bool, now: float
    ) -> list[Command]:
        dataflow = self._dataflows.get(report.dataflow_id)
        if dataflow is not None and daemon in dataflow.parts:
            return self.apply(dataflow, PartReported(daemon, report, registering), now)
        if report.phase == "ended":
            forget = ForgetPart(dataflow_id=report.dataflow_id, attempt=report.attempt)
            return [SendToDaemon(daemon, forget)]
        return [SendToDaemon(daemon, DescribePart(dataflow_id=report.dataflow_id))]

    def _adopt(self, daemon: str, message: PartDescribed, now: float) -> list[Command]:
        """Take over a running part that the store does not know (it was lost, or never kept)."""
        nodes = tuple(node.id for node in message.spec.resolved.nodes)
        mine = PartRecord(
            daemon=daemon, nodes=nodes, state=PartState.RUNNING, attempt=message.attempt
        )
        known = self._dataflows.get(message.dataflow_id)
        spec, number = message.spec, self._next_number
        others: tuple[PartRecord, ...] = ()
        if known is not None:
            if daemon in known.parts:
                return []
            others, number = known.record().parts, known.number
            merged = (*known.spec.resolved.nodes, *message.spec.resolved.nodes)
            spec = spec.model_copy(
                update={"resolved": spec.resolved.model_copy(update={"nodes": merged})}
            )
        else:
            self._next_number += 1
        name = None if spec.name in self._live_by_name else spec.name
        if known is not None:
            name = known.name
        record = DataflowRecord(
            dataflow_id=message.dataflow_id,
            name=name,
            phase=Phase.RUNNING,
            parts=(*others, mine),
            number=number,
        )
        dataflow = Dataflow(record, spec, self._context)
        stopping = False
        if known is not None:
            dataflow.links.take_over(known.links)
            stopping = known.phase is Phase.STOPPING
            if name and self._live_by_name.get(name) is known:
                self._live_by_name[name] = dataflow
        self._index(dataflow)
        text = f'adopted {dataflow.label}, which daemon "{daemon}" runs and the store does not hold'
        commands: list[Command] = [SaveRecord(record, spec), Log("warning", text)]
        return commands + (self.apply(dataflow, StopRequested(), now) if stopping else [])
