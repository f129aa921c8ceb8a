"""Snapshots of machines, nodes and edges: one request per daemon serves all viewers; pure.

A snapshot is taken when a client requests it. Requests that arrive meanwhile, or within
`REUSED_SECONDS` after it, get the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from dora_config.protocol.control import GetSnapshot
from dora_config.protocol.envelope import clean_lines
from dora_config.protocol.snapshot import (
    REUSED_SECONDS,
    MachineSample,
    MachineSummary,
    SampleMachine,
    Snapshot,
)
from dora_coordinator.clients.edge_rows import edge_rows
from dora_coordinator.clients.pending_calls import CallLimit, PendingCall, PendingCalls
from dora_coordinator.clients.views import daemon_summary, node_summaries
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.dataflow.registry import DataflowRegistry
from dora_coordinator.state.commands import AnswerClient, ArmTimer, Command
from dora_coordinator.state.events import ClientRequested, TimerKey
from dora_coordinator.state.membership import Membership

SAMPLE_SECONDS = 3.0
"""Time for daemons to answer; a snapshot is complete without those that do not."""
EDGE_BYTES = 2048
"""Largest size of one edge in a daemon's answer."""


@dataclass(slots=True)
class _Shared:
    """One snapshot that is being taken, or was taken a moment ago."""

    id: str
    dataflow: Dataflow | None
    """None: all."""
    clients: list[tuple[int, int]]
    answer: Snapshot | None = None


_Call = PendingCall[_Shared, MachineSample]


class Snapshots(PendingCalls[_Shared, MachineSample]):
    LIMIT = CallLimit("snapshot", SAMPLE_SECONDS)

    def __init__(
        self,
        registry: DataflowRegistry,
        membership: Membership,
        *,
        release: str,
        wall_offset: float,
        max_message_bytes: int,
    ) -> None:
        """``wall_offset``: Unix time minus the clock of the events."""
        super().__init__(membership)
        self._registry = registry
        self._release = release
        self._wall_offset = wall_offset
        self._max_edges = max(1, max_message_bytes // EDGE_BYTES)
        self._shared: dict[str | None, _Shared] = {}
        """By dataflow; each is removed when its answer has become too old."""

    def open(
        self,
        requested: ClientRequested,
        request: GetSnapshot,
        dataflow: Dataflow | None,
        now: float,
    ) -> list[Command]:
        """``dataflow`` None: all dataflows and machines."""
        client = (requested.client, requested.number)
        key = None if dataflow is None else dataflow.id
        known = self._shared.get(key)
        if not request.edges:
            call = _Call(requested, _Shared("", dataflow, []))
            return [AnswerClient(*client, self._assemble(call, now))]
        if known is None:
            shared = self._shared[key] = _Shared(requested.fresh_id, dataflow, [client])
            return self._request_samples(_Call(requested, shared), now)
        if known.answer is None:
            known.clients.append(client)
            return []
        return [AnswerClient(*client, known.answer)]

    def _request_samples(self, call: _Call, now: float) -> list[Command]:
        dataflow = call.context.dataflow
        chosen: tuple[str, ...] = ()
        if dataflow is None:
            connected = [member.key for member in self._membership.connected()]
            left = sorted(set(self._registry.unfinished_daemons()).difference(connected))
            daemons = [*left, *connected]
        else:
            daemons = [part.daemon for part in dataflow.parts.left()]
            chosen = (dataflow.id,)
        message = SampleMachine(sample=call.id, dataflows=chosen, max_edges=self._max_edges)
        return self._send(call, message, daemons, now)

    def sampled(self, daemon: str, sample: MachineSample, now: float) -> list[Command]:
        """Take a daemon's answer."""
        call = self._waiting_for(daemon, sample.sample)
        return [] if call is None else self._replied(call, daemon, sample, now)

    def timer_fired(self, call_id: str, now: float) -> list[Command]:
        """A call takes too long, or an answer has become too old."""
        for key, shared in self._shared.items():
            if shared.id == call_id and shared.answer is not None:
                del self._shared[key]
                return []
        return self.timed_out(call_id, now)

    def drop(self, client: int, number: int | None) -> None:
        """Forget one request of a client (None: all of them); its snapshot is completed."""
        for shared in self._shared.values():
            shared.clients = [
                (one, other)
                for one, other in shared.clients
                if one != client or number not in (None, other)
            ]

    def _close(self, call: _Call, now: float) -> list[Command]:
        shared = call.context
        answer = shared.answer = self._assemble(call, now)
        answers: list[Command] = [AnswerClient(*client, answer) for client in shared.clients]
        shared.clients.clear()
        return [*answers, ArmTimer(TimerKey("snapshot", shared.id), now + REUSED_SECONDS)]

    def _abandon(self, call: _Call) -> list[tuple[int, int]]:
        dataflow = call.context.dataflow
        del self._shared[None if dataflow is None else dataflow.id]
        return call.context.clients

    def _assemble(self, call: _Call, now: float) -> Snapshot:
        registry, membership = self._registry, self._membership
        dataflow = call.context.dataflow
        if dataflow is None:
            dataflows, members = registry.live(), membership.all()
        else:
            dataflows = [dataflow]
            found = (membership.get(daemon) for daemon in dataflow.parts)
            members = [member for member in found if member is not None]
        machines = []
        for member in members:
            summary = daemon_summary(member, registry, membership, now)
            sample = call.replies.get(member.key)
            machines.append(
                MachineSummary(
                    **dict(summary),
                    load=None if sample is None else sample.load,
                    operation=None if sample is None else sample.operation,
                )
            )
        problems = list(call.problems.values())
        for daemon, reply in call.replies.items():
            problems += [f'daemon "{daemon}": {clean_lines(text)}' for text in reply.problems]
        return Snapshot(
            time=now + self._wall_offset,
            release=self._release,
            machines=tuple(machines),
            nodes=tuple(row for one in dataflows for row in node_summaries(one, membership)),
            edges=tuple(edge_rows(call.replies, {one.id: one.name for one in dataflows})),
            problems=tuple(problems),
        )
