"""Snapshots of machines, nodes and edges: one request per daemon serves all viewers.

A snapshot is taken when a client requests it. Requests that arrive meanwhile, or within
`REUSED_SECONDS` after it, get the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio

from dora_config.protocol.envelope import clean_lines
from dora_config.protocol.snapshot import (
    REUSED_SECONDS,
    MachineSample,
    MachineSummary,
    SampleMachine,
    Snapshot,
)
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.dataflow.views import daemon_summary, node_summaries
from dora_coordinator.queries.cluster import QueryContext
from dora_coordinator.queries.daemon_calls import Replies
from dora_coordinator.queries.edge_rows import edge_rows

SAMPLE_SECONDS = 3.0
"""Time for daemons to answer; a snapshot is complete without those that do not."""
EDGE_BYTES = 2048
"""Largest size of one edge in a daemon's answer."""


@dataclass(slots=True)
class _Kept:
    """The last snapshot of one dataflow, or of all."""

    lock: anyio.Lock = field(default_factory=anyio.Lock)
    """Held while a snapshot is taken."""
    answer: Snapshot | None = None
    until: float = 0.0


class Snapshots:
    def __init__(self, release: str) -> None:
        """``release``: version of the coordinator."""
        self._release = release
        self._kept: dict[str | None, _Kept] = {}
        """Snapshots by dataflow."""

    async def get(
        self, cluster: QueryContext, dataflow: Dataflow | None, *, edges: bool
    ) -> Snapshot:
        """Return a snapshot; ``dataflow`` None: of all dataflows and machines."""
        if not edges:
            return self._assemble(cluster, dataflow, Replies())
        now = anyio.current_time()
        self._kept = {
            key: one for key, one in self._kept.items() if one.until > now or one.lock.locked()
        }
        kept = self._kept.setdefault(None if dataflow is None else dataflow.id, _Kept())
        async with kept.lock:
            if kept.answer is None or kept.until <= anyio.current_time():
                replies = await self._sample(cluster, dataflow)
                kept.answer = self._assemble(cluster, dataflow, replies)
                kept.until = anyio.current_time() + REUSED_SECONDS
            return kept.answer

    async def _sample(
        self, cluster: QueryContext, dataflow: Dataflow | None
    ) -> Replies[MachineSample]:
        chosen: tuple[str, ...] = ()
        if dataflow is None:
            connected = [member.key for member in cluster.membership.connected()]
            left = sorted(set(cluster.registry.unfinished_daemons()).difference(connected))
            daemons = [*left, *connected]
        else:
            daemons = [part.daemon for part in dataflow.parts.left()]
            chosen = (dataflow.id,)
        max_edges = max(1, cluster.settings.max_message_bytes // EDGE_BYTES)
        return await cluster.calls.gather(
            daemons,
            SampleMachine(dataflows=chosen, max_edges=max_edges),
            MachineSample,
            seconds=SAMPLE_SECONDS,
        )

    def _assemble(
        self,
        cluster: QueryContext,
        dataflow: Dataflow | None,
        replies: Replies[MachineSample],
    ) -> Snapshot:
        registry, membership, now = cluster.registry, cluster.membership, anyio.current_time()
        if dataflow is None:
            dataflows, members = registry.live(), membership.all()
        else:
            dataflows = [dataflow]
            found = (membership.get(daemon) for daemon in dataflow.parts)
            members = [member for member in found if member is not None]
        machines = []
        for member in members:
            summary = daemon_summary(member, registry, membership, now)
            sample = replies.found.get(member.key)
            machines.append(
                MachineSummary(
                    **dict(summary),
                    load=None if sample is None else sample.load,
                    operation=None if sample is None else sample.operation,
                )
            )
        problems = list(replies.problems.values())
        for daemon, reply in replies.found.items():
            problems += [f'daemon "{daemon}": {clean_lines(text)}' for text in reply.problems]
        return Snapshot(
            time=now + cluster.state.wall_offset,
            release=self._release,
            machines=tuple(machines),
            nodes=tuple(row for one in dataflows for row in node_summaries(one, membership)),
            edges=tuple(edge_rows(replies.found, {one.id: one.name for one in dataflows})),
            problems=tuple(problems),
        )
