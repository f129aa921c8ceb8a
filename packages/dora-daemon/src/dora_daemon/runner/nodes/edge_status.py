"""Counters of one queue as reported on the control socket."""

from __future__ import annotations

import time

from dora_config.protocol.runner import EdgeStatus, quantile
from dora_daemon.runner.machine.streams import shown_target
from dora_daemon.runner.nodes.queues import QueueEntry


def edge_status(entry: QueueEntry) -> EdgeStatus:
    """Return the counters of a queue."""
    counted = entry.keeper.statistics()
    edge = entry.edge
    idle = None
    if counted.last_arrival_ns:
        idle = max(0.0, (time.monotonic_ns() - counted.last_arrival_ns) / 1e9)
    latency: dict[str, float] = {}
    for name, fraction in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
        seconds = quantile(counted.latency, fraction)
        if seconds is not None:
            latency[name] = seconds * 1e6
    return EdgeStatus(
        source=f"{edge.source}/{edge.output}",
        target=shown_target(edge),
        policy=entry.spec.policy,
        bound=entry.spec.bound,
        sent=counted.sent,
        received=counted.received,
        dropped=counted.dropped,
        queued=counted.queued,
        bytes_sent=counted.bytes_sent,
        bytes_received=counted.bytes_received,
        blocked=counted.blocked,
        idle_seconds=idle,
        latency_us=latency,
        latency_counts=counted.latency,
    )
