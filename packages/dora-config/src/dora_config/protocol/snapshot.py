"""Snapshot of a cluster: its machines, nodes and edges with their counters; no I/O.

A client sends `GetSnapshot`. The coordinator then sends `SampleMachine` to its daemons, each daemon
reads the counters of its runners, and the coordinator answers with one :class:`Snapshot`. An answer
is reused for :data:`REUSED_SECONDS`, so that several viewers cost as much as one; without viewers
nothing is sampled. Counters only grow while a node runs: :class:`EdgeRates` compares two snapshots.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from pydantic import Field

from dora_config.frozen import Count, Quantity, UnixTime
from dora_config.protocol.envelope import DataflowUuid, Message
from dora_config.protocol.reports import (
    DaemonSummary as DaemonSummary,
    LinkSummary as LinkSummary,
    NodeSummary as NodeSummary,
)
from dora_config.protocol.runner import EdgeCounters, LatencyCounts, Statistics, quantile

REUSED_SECONDS: Final = 1.0
"""Age at which a snapshot is taken anew."""

# ------------------------------------------------------------------- coordinator and daemon


class SampleMachine(Message, kind="sample_machine"):
    """Coordinator to daemon: read the counters; answered with :class:`MachineSample`."""

    dataflows: tuple[DataflowUuid, ...] = ()
    """Empty: all that run there."""
    max_edges: int = 4096
    """Further edges are left out; lower where the coordinator accepts only short messages."""


class MachineLoad(Message):
    """CPU, memory and disk of a whole machine."""

    cpus: Count = 0
    cpu_seconds: Quantity = 0.0
    """Busy time of all CPUs since the machine booted."""
    memory_bytes: Count = 0
    """Memory in use."""
    memory_total_bytes: Count = 0
    disk_bytes: Count = 0
    """Used space on the disk of the daemon's working directory."""
    disk_total_bytes: Count = 0


class MachineOperation(Message):
    """A command that works on a machine, such as `dora cluster upgrade`, and has locked it."""

    command: str
    """Command line as it was typed."""
    operator: str = ""
    """``USER@HOST``."""
    since: UnixTime = 0.0
    """Unix time of the machine."""


class MachineSample(Message, kind="machine_sample"):
    """Daemon to coordinator: answer to :class:`SampleMachine`."""

    parts: dict[DataflowUuid, Statistics] = Field(default_factory=dict)
    """Counters by dataflow, read at times of the machine's CLOCK_MONOTONIC."""
    load: MachineLoad = MachineLoad()
    operation: MachineOperation | None = None
    problems: tuple[str, ...] = ()
    """Runners that did not answer, as full sentences."""


# ---------------------------------------------------------------------- coordinator and client


class MachineSummary(DaemonSummary):
    """One machine of a snapshot."""

    load: MachineLoad | None = None
    """``None``: the machine did not answer, or edges were not requested."""
    operation: MachineOperation | None = None
    """``None`` also if the machine did not answer."""


class EdgeSummary(EdgeCounters, Message):
    """One edge. ``sent = received + dropped + lost + queued``; between machines only nearly,
    because the two ends are not read at the same time.
    """

    dataflow: str
    dataflow_name: str | None = None
    source_machine: str
    target_machine: str
    full: bool = False
    """The queue of the input has room for one message at most."""
    lost: int = 0
    """Lost between two machines."""
    bytes: int = 0
    """Size of the received messages."""
    raw_bytes: int = 0
    """Size of the messages that were sent to the other machine."""
    wire_bytes: int = 0
    """Size that they had between the machines, compressed."""
    uncompressed: str = ""
    """Why messages cross uncompressed although the input has ``compress``, as a sentence."""
    latency: LatencyCounts = ()
    """Latencies from send to receipt, with the clock offset between machines."""
    at: float = 0.0
    """Time of reading the counters, in seconds of the target machine's CLOCK_MONOTONIC."""

    @property
    def newest_only(self) -> bool:
        """Whether the queue keeps only the newest message, as intended (`queue_size: 1`)."""
        return self.bound == 1

    @property
    def ratio(self) -> float | None:
        """Share of the bytes that crosses, of all messages so far; None without compression."""
        if not 0 < self.wire_bytes < self.raw_bytes:
            return None
        return self.wire_bytes / self.raw_bytes

    @property
    def key(self) -> tuple[str, str, str]:
        """Identifies the edge in another snapshot."""
        return (self.dataflow, self.source, self.target)


class Snapshot(Message, kind="snapshot"):
    """Answer to `GetSnapshot`. Machines and nodes are those of the last heartbeats."""

    time: float = 0.0
    """Unix time of the coordinator."""
    release: str = ""
    """Version of the coordinator."""
    machines: tuple[MachineSummary, ...] = ()
    nodes: tuple[NodeSummary, ...] = ()
    edges: tuple[EdgeSummary, ...] = ()
    problems: tuple[str, ...] = ()
    """Machines and runners whose edges are missing, as full sentences."""

    @cached_property
    def text(self) -> str:
        """JSON, encoded once for all clients."""
        return self.model_dump_json()


# --------------------------------------------------------------------------------- evaluation


@dataclass(frozen=True, slots=True)
class EdgeRates:
    """Rates of one edge between two snapshots, per second; latencies in seconds.

    ``None``: unknown, because the edge is new or was created again in between, or no message
    arrived.
    """

    messages: float | None = None
    bytes: float | None = None
    wire_bytes: float | None = None
    """Bytes that cross between machines, for messages that are compressed."""
    drops: float | None = None
    """Dropped and lost messages."""
    p50: float | None = None
    p99: float | None = None


def edge_rates(before: EdgeSummary | None, now: EdgeSummary) -> EdgeRates:
    """Return the rates between two samples of one edge.

    Without ``before`` only the latencies are known, over all messages.
    """
    if before is None:
        return EdgeRates(p50=quantile(now.latency, 0.5), p99=quantile(now.latency, 0.99))
    seconds = now.at - before.at
    if seconds <= 0 or now.received < before.received or now.sent < before.sent:
        return EdgeRates()
    recent = _difference(before.latency, now.latency)
    lost = now.dropped + now.lost - before.dropped - before.lost
    return EdgeRates(
        messages=(now.received - before.received) / seconds,
        bytes=max(0, now.bytes - before.bytes) / seconds,
        wire_bytes=(
            None if now.ratio is None else max(0, now.wire_bytes - before.wire_bytes) / seconds
        ),
        drops=max(0, lost) / seconds,
        p50=quantile(recent, 0.5),
        p99=quantile(recent, 0.99),
    )


def all_edge_rates(
    before: Snapshot | None, now: Snapshot
) -> Mapping[tuple[str, str, str], EdgeRates]:
    """Return the rates of all edges of ``now`` by :attr:`EdgeSummary.key`."""
    earlier = {} if before is None else {edge.key: edge for edge in before.edges}
    return {edge.key: edge_rates(earlier.get(edge.key), edge) for edge in now.edges}


def _difference(before: Iterable[tuple[int, int]], now: LatencyCounts) -> LatencyCounts:
    earlier = dict(before)
    found = ((bound, count - earlier.get(bound, 0)) for bound, count in now)
    return tuple((bound, count) for bound, count in found if count > 0)
