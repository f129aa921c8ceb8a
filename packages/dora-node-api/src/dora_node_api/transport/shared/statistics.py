"""Counters of an edge, read at any time without a call to either end."""

from __future__ import annotations

from dora_node_api.frozen import Frozen
from dora_node_api.transport.shared import layout
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.queue import QueueEnds
from dora_node_api.transport.shared.specs import QueueSpec


class EdgeStatistics(Frozen):
    """Counters of one edge since it was made. `sent == received + dropped + queued`."""

    sent: int
    received: int
    """Handed out to the consumer."""
    dropped: int
    queued: int
    bytes_sent: int
    bytes_received: int
    evicted: int
    """Of the dropped messages, those that the producer removed to make room."""
    broken: int
    copied: int
    blocked: bool
    """Whether the producer waits for room."""
    blocked_seconds: float
    last_arrival_ns: int
    """CLOCK_MONOTONIC of the last received message; 0 before the first."""
    latency: tuple[tuple[int, int], ...]
    """Upper bound in nanoseconds and count of each bucket (of 25 %) that is not empty."""


def read_statistics(board: Board, spec: QueueSpec, ends: QueueEnds) -> EdgeStatistics:
    """Read an edge's counters, in any process with the board and a read end."""
    words = board.edge_words(spec.area)
    for _ in range(20):
        before = words[layout.P_SENT], words[layout.C_RECEIVED], words[layout.P_EVICTED]
        queued = ends.depth()
        counters = words.tolist()
        after = (
            counters[layout.P_SENT],
            counters[layout.C_RECEIVED],
            counters[layout.P_EVICTED],
        )
        if before == after:
            break
    sent = counters[layout.P_SENT]
    taken = min(counters[layout.C_RECEIVED], sent)
    handed = max(taken - counters[layout.C_DISCARDED] - counters[layout.C_BROKEN], 0)
    queued = min(queued, sent - taken)
    buckets = counters[layout.HISTOGRAM : layout.HISTOGRAM + layout.HISTOGRAM_BUCKETS]
    return EdgeStatistics(
        sent=sent,
        received=handed,
        dropped=sent - handed - queued,
        queued=queued,
        bytes_sent=counters[layout.P_BYTES_SENT],
        bytes_received=counters[layout.C_BYTES_RECEIVED],
        evicted=counters[layout.P_EVICTED],
        broken=counters[layout.C_BROKEN],
        copied=counters[layout.C_COPIED],
        blocked=bool(counters[layout.P_BLOCKED]),
        blocked_seconds=counters[layout.P_BLOCKED_NS] / 1e9,
        last_arrival_ns=counters[layout.C_LAST_ARRIVAL_NS],
        latency=tuple((layout.bucket_start(i + 1), n) for i, n in enumerate(buckets) if n),
    )
