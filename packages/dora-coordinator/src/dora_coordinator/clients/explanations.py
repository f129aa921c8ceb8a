"""Explanations of dataflows: events of all machines are collected, then explained; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dora_config.disk_space import SPARE
from dora_config.history.entries import HistoryEntry, StartRefused, edges_of
from dora_config.history.evidence import EdgeFlow, Evidence, MachineEvidence
from dora_config.history.explain import explain
from dora_config.protocol.control import DataflowRef, Explain, Explained
from dora_config.protocol.daemon import PartHistory, ReadHistory
from dora_config.protocol.envelope import clean_lines
from dora_config.protocol.snapshot import MachineSample, PartSample
from dora_coordinator.clients.edge_rows import edge_rows
from dora_coordinator.clients.pending_calls import (
    CallLimit,
    CallProblems,
    PendingCall,
    PendingCalls,
)
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.dataflow.part import Part
from dora_coordinator.dataflow.registry import DataflowRegistry, RequestRefused
from dora_coordinator.settings import Settings
from dora_coordinator.state.commands import AnswerClient, Command
from dora_coordinator.state.events import ClientRequested
from dora_coordinator.state.membership import LONG_SILENCE, Member, Membership

READ_SECONDS = 3.0
"""Time for daemons to answer; an explanation is written without those that do not."""


@dataclass(frozen=True, slots=True)
class _Context:
    request: Explain
    dataflow: Dataflow


_Call = PendingCall[_Context, PartHistory]


class Explanations(PendingCalls[_Context, PartHistory]):
    LIMIT = CallLimit("explanation", READ_SECONDS)
    PROBLEMS = CallProblems(
        unconnected='machine "{0}" is not connected: its history is missing',
        lost='the connection to machine "{0}" was lost: its history is missing',
        late='machine "{0}" has not answered for {1:g} s: its history is missing',
    )

    def __init__(
        self,
        registry: DataflowRegistry,
        membership: Membership,
        settings: Settings,
        *,
        wall_offset: float,
    ) -> None:
        """``wall_offset``: Unix time minus the clock of the events."""
        super().__init__(membership)
        self._registry = registry
        self._silent_after = LONG_SILENCE * settings.heartbeat_interval
        self._wall_offset = wall_offset

    def open(self, requested: ClientRequested, request: Explain, now: float) -> list[Command]:
        """Raises :class:`RequestRefused`."""
        refused = self._refused_start(request.dataflow)
        if refused is not None:
            return [_answer(requested, request, self._of_refused(refused, now))]
        dataflow = self._find(request.dataflow)
        if dataflow is None:
            return [_answer(requested, request, self._of_machines(now))]
        call = _Call(requested, _Context(request, dataflow))
        message = ReadHistory(read=call.id, dataflow_id=dataflow.id)
        daemons = [part.daemon for part in dataflow.parts.values()]
        return self._send(call, message, daemons, now)

    def _refused_start(self, ref: DataflowRef) -> HistoryEntry | None:
        """Return the refused start that a reference means, unless one was accepted later."""
        if ref.uuid is not None:
            return None
        if ref.name is not None and self._registry.live_named(ref.name) is not None:
            return None
        if ref.name is None and self._registry.live():
            return None
        history = self._registry.history
        refused = history.refused(ref.name)
        if refused is None:
            return None
        try:
            entries, _ = history.of(self._registry.find(ref, archived=True).id)
        except RequestRefused:
            return refused
        return None if entries and entries[0].at > refused.at else refused

    def _find(self, ref: DataflowRef) -> Dataflow | None:
        """Return the dataflow; without a reference, the only one in trouble if several run."""
        try:
            return self._registry.find(ref, archived=True)
        except RequestRefused as refusal:
            if refusal.code == "nothing_runs":
                return None
            troubled = [one for one in self._registry.live() if one.status()[0] != "Running"]
            if refusal.code != "ambiguous" or len(troubled) != 1:
                raise
            return troubled[0]

    def answered(self, daemon: str, history: PartHistory, now: float) -> list[Command]:
        """Take a daemon's answer."""
        call = self._waiting_for(daemon, history.read)
        if call is None:
            return []
        if history.problem is not None:
            call.problems[daemon] = f'machine "{daemon}": {clean_lines(history.problem)}'
        return self._replied(call, daemon, history, now)

    def _close(self, call: _Call, now: float) -> list[Command]:
        evidence = self._evidence(call, now)
        return [_answer(call.requested, call.context.request, evidence)]

    # ---------------------------------------------------------------------- evidence

    def _evidence(self, call: _Call, now: float) -> Evidence:
        dataflow = call.context.dataflow
        status, reason = dataflow.status()
        entries, dropped = self._registry.history.of(dataflow.id)
        waits = () if dataflow.waits_for is None else (dataflow.waits_for,)
        ending = flows(dataflow, call.replies)
        return Evidence(
            uuid=dataflow.id,
            name=dataflow.name,
            status=status,
            reason=reason,
            ended=dataflow.has_ended,
            now=now + self._wall_offset,
            entries=entries,
            dropped=dropped,
            machines=tuple(
                self._machine(call, part, ending.get(part.daemon, ()), now)
                for part in dataflow.parts.values()
            ),
            edges=edges_of(dataflow.spec.resolved),
            waits_for=waits,
        )

    def _machine(
        self, call: _Call, part: Part, edges: Sequence[EdgeFlow], now: float
    ) -> MachineEvidence:
        history = call.replies.get(part.daemon, PartHistory(read=""))
        member = self._membership.get(part.daemon)
        free = history.free_bytes
        return MachineEvidence(
            machine=part.daemon,
            entries=history.entries,
            dropped=history.dropped,
            clock_offset=0.0 if member is None else member.clock_offset or 0.0,
            node_ids=part.nodes,
            nodes=history.nodes,
            edges=tuple(edges),
            connected=self._membership.is_connected(part.daemon),
            silent=self._silence(member, now),
            full_disk=history.folder if free is not None and free < SPARE else None,
            problem=call.problems.get(part.daemon),
        )

    def _silence(self, member: Member | None, now: float) -> float | None:
        if member is None or member.connection is None:
            return None
        silence = now - member.last_message
        return silence if silence > self._silent_after else None

    def _of_refused(self, refused: HistoryEntry, now: float) -> Evidence:
        """Return what is known about a dataflow that was not started."""
        assert isinstance(refused.event, StartRefused)
        step = "`dora build`" if refused.event.step == "build" else "`dora start`"
        return Evidence(
            name=refused.event.name,
            status="Not started",
            ended=True,
            now=now + self._wall_offset,
            entries=(refused,),
            notes=(f"nothing waits: run {step} again once the cause is removed",),
        )

    def _of_machines(self, now: float) -> Evidence:
        """Return the evidence without a dataflow: lost machines."""
        lost = [one for one in self._membership.all() if one.connection is None and not one.left]
        return Evidence(
            status="No dataflows",
            ended=True,
            now=now + self._wall_offset,
            notes=tuple(
                f'machine "{one.key}" is not connected: its last message came '
                f"{now - one.last_message:.0f} s ago from {one.address}"
                for one in lost
            ),
        )


def flows(dataflow: Dataflow, histories: Mapping[str, PartHistory]) -> dict[str, list[EdgeFlow]]:
    """Return the counters of edges by the machine on which they end."""
    samples = {
        daemon: MachineSample(
            sample="", parts=(PartSample(dataflow_id=dataflow.id, edges=history.edges),)
        )
        for daemon, history in histories.items()
    }
    queues = {
        (edge.source, edge.target): edge for history in histories.values() for edge in history.edges
    }
    found: dict[str, list[EdgeFlow]] = {}
    for row in edge_rows(samples, {dataflow.id: dataflow.name}):
        queue = queues[row.source, row.target]
        values = {name: getattr(row, name) for name in EdgeFlow.model_fields if hasattr(row, name)}
        full = queue.queued >= max(1, queue.bound - 1)
        flow = EdgeFlow(**values, full=full, newest_only=queue.bound == 1)
        found.setdefault(row.target_machine, []).append(flow)
    return found


def _answer(requested: ClientRequested, request: Explain, evidence: Evidence) -> Command:
    answer = Explained(
        explanation=explain(evidence), evidence=evidence if request.evidence else None
    )
    return AnswerClient(requested.client, requested.number, answer)
