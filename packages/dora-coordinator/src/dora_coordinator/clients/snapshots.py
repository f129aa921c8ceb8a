"""Snapshots of machines, nodes and edges: daemons are asked once for all viewers; pure.

A snapshot is taken when a client requests it. Requests that arrive meanwhile, or within
`REUSED_SECONDS` after it, get the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

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
from dora_coordinator.clients.views import daemon_summary, node_summaries
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.dataflow.registry import DataflowRegistry
from dora_coordinator.state.commands import AnswerClient, ArmTimer, Command, SendToDaemon
from dora_coordinator.state.events import ClientRequested, TimerKey
from dora_coordinator.state.membership import Member, Membership

SAMPLE_SECONDS = 3.0
"""Time for daemons to answer; a snapshot is complete without those that do not."""
EDGE_BYTES = 2048
"""Largest size of one edge in a daemon's answer."""
FIRST_MINOR = 1
"""Minor protocol version of the first daemons that understand `SampleMachine`."""


@dataclass(slots=True)
class _Collection:
    """One snapshot that is being taken, or was taken a moment ago."""

    number: str
    dataflow: Dataflow | None
    """None: all."""
    waiting: set[str] = field(default_factory=set)
    """Daemons that have not answered."""
    clients: list[tuple[int, int]] = field(default_factory=list)
    samples: dict[str, MachineSample] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    answer: Snapshot | None = None


class Snapshots:
    """Collections by dataflow; each is removed when its answer has become too old."""

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
        self._registry = registry
        self._membership = membership
        self._release = release
        self._wall_offset = wall_offset
        self._max_edges = max(1, max_message_bytes // EDGE_BYTES)
        self._collections: dict[str | None, _Collection] = {}

    def open(
        self,
        requested: ClientRequested,
        request: GetSnapshot,
        dataflow: Dataflow | None,
        now: float,
    ) -> list[Command]:
        """``dataflow`` None: all dataflows and machines."""
        client = (requested.client, requested.number)
        if not request.edges:
            answer = self._assemble(_Collection("", dataflow), now)
            return [AnswerClient(*client, answer)]
        key = None if dataflow is None else dataflow.id
        known = self._collections.get(key)
        if known is not None and known.answer is not None:
            return [AnswerClient(*client, known.answer)]
        if known is not None:
            known.clients.append(client)
            return []
        collection = _Collection(requested.fresh_id, dataflow, clients=[client])
        self._collections[key] = collection
        commands = self._ask(collection)
        if not collection.waiting:
            return self._finish(collection, now)
        return [*commands, ArmTimer(_timer(collection), now + SAMPLE_SECONDS)]

    def _ask(self, collection: _Collection) -> list[Command]:
        dataflow = collection.dataflow
        if dataflow is None:
            left = set(self._registry.unfinished_daemons())
            daemons = [member.key for member in self._membership.connected()]
            missing = sorted(left.difference(daemons))
            message = SampleMachine(sample=collection.number, max_edges=self._max_edges)
        else:
            parts = [part.daemon for part in dataflow.parts.left()]
            daemons = [daemon for daemon in parts if self._membership.is_connected(daemon)]
            missing = [daemon for daemon in parts if daemon not in daemons]
            message = SampleMachine(
                sample=collection.number, dataflows=(dataflow.id,), max_edges=self._max_edges
            )
        collection.problems += [f'no connection to daemon "{daemon}"' for daemon in missing]
        commands: list[Command] = []
        for daemon in daemons:
            member = self._membership.get(daemon)
            if member is not None and _is_too_old(member):
                release = member.register.party.release
                collection.problems.append(
                    f'daemon "{daemon}" has release {release}, which does not report edges; '
                    "upgrade it"
                )
                continue
            collection.waiting.add(daemon)
            commands.append(SendToDaemon(daemon, message))
        return commands

    def sampled(self, daemon: str, sample: MachineSample, now: float) -> list[Command]:
        """Take a daemon's answer."""
        for collection in self._collections.values():
            if collection.number == sample.sample and daemon in collection.waiting:
                collection.waiting.discard(daemon)
                collection.samples[daemon] = sample
                collection.problems += [
                    f'daemon "{daemon}": {clean_lines(problem)}' for problem in sample.problems
                ]
                return [] if collection.waiting else self._finish(collection, now)
        return []

    def daemon_lost(self, daemon: str, now: float) -> list[Command]:
        commands: list[Command] = []
        for collection in list(self._collections.values()):
            if daemon in collection.waiting:
                collection.waiting.discard(daemon)
                collection.problems.append(f'the connection to daemon "{daemon}" was lost')
                if not collection.waiting:
                    commands += self._finish(collection, now)
        return commands

    def timer_fired(self, number: str, now: float) -> list[Command]:
        """A collection takes too long, or its answer has become too old."""
        for key, collection in list(self._collections.items()):
            if collection.number != number:
                continue
            if collection.answer is not None:
                del self._collections[key]
                return []
            collection.problems += [
                f'daemon "{daemon}" has not answered for {SAMPLE_SECONDS:g} s'
                for daemon in sorted(collection.waiting)
            ]
            collection.waiting.clear()
            return self._finish(collection, now)
        return []

    def drop(self, client: int, number: int | None) -> None:
        """Forget one request of a client (None: all of them)."""
        for collection in self._collections.values():
            collection.clients = [
                (one, other)
                for one, other in collection.clients
                if one != client or number not in (None, other)
            ]

    def _finish(self, collection: _Collection, now: float) -> list[Command]:
        answer = collection.answer = self._assemble(collection, now)
        answers: list[Command] = [AnswerClient(*client, answer) for client in collection.clients]
        collection.clients.clear()
        collection.samples.clear()
        return [*answers, ArmTimer(_timer(collection), now + REUSED_SECONDS)]

    def _assemble(self, collection: _Collection, now: float) -> Snapshot:
        registry, membership = self._registry, self._membership
        dataflow = collection.dataflow
        if dataflow is None:
            dataflows, members = registry.live(), membership.all()
        else:
            dataflows = [dataflow]
            found = (membership.get(daemon) for daemon in dataflow.parts)
            members = [member for member in found if member is not None]
        machines = []
        for member in members:
            summary = daemon_summary(member, registry, membership, now)
            sample = collection.samples.get(member.key)
            machines.append(
                MachineSummary(
                    **dict(summary),
                    load=None if sample is None else sample.load,
                    operation=None if sample is None else sample.operation,
                )
            )
        return Snapshot(
            time=now + self._wall_offset,
            release=self._release,
            machines=tuple(machines),
            nodes=tuple(row for one in dataflows for row in node_summaries(one, membership)),
            edges=tuple(edge_rows(collection.samples, {one.id: one.name for one in dataflows})),
            problems=tuple(collection.problems),
        )


def _timer(collection: _Collection) -> TimerKey:
    return TimerKey("snapshot", collection.number)


def _is_too_old(member: Member) -> bool:
    return member.register.party.protocol.minor < FIRST_MINOR
