"""Explanations of dataflows: events of all machines are collected, then explained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import anyio

from dora_config.disk_space import SPARE_BYTES
from dora_config.history.entries import HistoryEntry, StartRefused, edges_of
from dora_config.history.evidence import Evidence, MachineEvidence
from dora_config.history.explain import explain
from dora_config.protocol.control import Explain, Explained
from dora_config.protocol.daemon import PartHistory, ReadHistory
from dora_config.protocol.envelope import clean_lines
from dora_config.protocol.runner import Statistics
from dora_config.protocol.snapshot import EdgeSummary, MachineSample
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.dataflow.index import uuid_in
from dora_coordinator.dataflow.part import Part
from dora_coordinator.queries.cluster import QueryContext
from dora_coordinator.queries.daemon_calls import CallProblems, Replies
from dora_coordinator.queries.edge_rows import edge_rows
from dora_coordinator.state.commands import RequestRefused
from dora_coordinator.state.membership import LONG_SILENCE, Member

READ_SECONDS = 3.0
"""Time for daemons to answer; an explanation is written without those that do not."""


PROBLEMS = CallProblems(
    unconnected='machine "{0}" is not connected: its history is missing',
    lost='the connection to machine "{0}" was lost: its history is missing',
    late='machine "{0}" has not answered for {1:g} s: its history is missing',
    failed='machine "{0}": {1}',
)


async def explained(request: Explain, cluster: QueryContext) -> Explained:
    """Return the explanation of a dataflow; raises :class:`RequestRefused`."""
    evidence = await _Collection(cluster).evidence(request.dataflow)
    return Explained(explanation=explain(evidence), evidence=evidence if request.evidence else None)


class _Collection:
    def __init__(self, cluster: QueryContext) -> None:
        self._calls = cluster.calls
        self._registry = cluster.registry
        self._membership = cluster.membership
        self._silent_after = LONG_SILENCE * cluster.settings.heartbeat_interval
        self._wall_offset = cluster.state.wall_offset

    async def evidence(self, ref: str | None) -> Evidence:
        refused = self._refused_start(ref)
        if refused is not None:
            return self._of_refused(refused)
        dataflow = self._find(ref)
        if dataflow is None:
            return self._of_machines()
        replies = await self._calls.gather(
            [part.daemon for part in dataflow.parts.values()],
            ReadHistory(dataflow_id=dataflow.id),
            PartHistory,
            seconds=READ_SECONDS,
            problems=PROBLEMS,
        )
        for daemon, part in replies.found.items():
            if part.problem is not None:
                replies.problems[daemon] = PROBLEMS.failed.format(daemon, clean_lines(part.problem))
        return self._evidence(dataflow, replies)

    def _refused_start(self, ref: str | None) -> HistoryEntry | None:
        """Return the refused start of a name, unless a later start was accepted."""
        if ref is None:
            if self._registry.live():
                return None
        elif uuid_in(ref) is not None or self._registry.live_named(ref) is not None:
            return None
        history = self._registry.history
        refused = history.refused(ref)
        if refused is None:
            return None
        try:
            entries, _ = history.of(self._registry.find(ref, archived=True).id)
        except RequestRefused:
            return refused
        return None if entries and entries[0].at > refused.at else refused

    def _find(self, ref: str | None) -> Dataflow | None:
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

    def _evidence(self, dataflow: Dataflow, replies: Replies[PartHistory]) -> Evidence:
        now = anyio.current_time()
        status, reason = dataflow.status()
        entries, dropped = self._registry.history.of(dataflow.id)
        waits = () if dataflow.waits_for is None else (dataflow.waits_for,)
        named = tuple(self._registry.named(dataflow, now))
        ending = edges_by_machine(dataflow, replies.found)
        return Evidence(
            uuid=dataflow.id,
            name=dataflow.name,
            status=status,
            reason=reason,
            ended=dataflow.has_ended,
            now=anyio.current_time() + self._wall_offset,
            entries=entries,
            dropped=dropped,
            machines=tuple(
                self._machine(replies, part, ending.get(part.daemon, ()), now)
                for part in dataflow.parts.values()
            ),
            edges=edges_of(dataflow.spec.resolved),
            waits_for=named or waits,
        )

    def _machine(
        self, replies: Replies[PartHistory], part: Part, edges: Sequence[EdgeSummary], now: float
    ) -> MachineEvidence:
        found = replies.found.get(part.daemon, PartHistory())
        member = self._membership.get(part.daemon)
        history, free = found.history, found.free_bytes
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
            full_disk=found.folder if free is not None and free < SPARE_BYTES else None,
            problem=replies.problems.get(part.daemon),
        )

    def _silence(self, member: Member | None, now: float) -> float | None:
        if member is None or member.connection is None:
            return None
        silence = now - member.last_message
        return silence if silence > self._silent_after else None

    def _of_refused(self, refused: HistoryEntry) -> Evidence:
        """Return the evidence about a dataflow that was not started."""
        assert isinstance(refused.event, StartRefused)
        step = "`dora build`" if refused.event.step == "build" else "`dora start`"
        return Evidence(
            name=refused.event.name,
            status="Not started",
            ended=True,
            now=anyio.current_time() + self._wall_offset,
            entries=(refused,),
            notes=(f"nothing waits: run {step} again once the cause is removed",),
        )

    def _of_machines(self) -> Evidence:
        """Return the evidence without a dataflow: lost machines."""
        now = anyio.current_time()
        lost = [one for one in self._membership.all() if one.connection is None and not one.left]
        return Evidence(
            status="No dataflows",
            ended=True,
            now=anyio.current_time() + self._wall_offset,
            notes=tuple(
                f'machine "{one.key}" is not connected: its last message came '
                f"{now - one.last_message:.0f} s ago from {one.address}"
                for one in lost
            ),
        )


def edges_by_machine(
    dataflow: Dataflow, histories: Mapping[str, PartHistory]
) -> dict[str, list[EdgeSummary]]:
    """Return the edges by the machine on which they end."""
    samples = {
        daemon: MachineSample(parts={dataflow.id: Statistics(edges=part.history.edges)})
        for daemon, part in histories.items()
    }
    found: dict[str, list[EdgeSummary]] = {}
    for row in edge_rows(samples, {dataflow.id: dataflow.name}):
        found.setdefault(row.target_machine, []).append(row)
    return found
