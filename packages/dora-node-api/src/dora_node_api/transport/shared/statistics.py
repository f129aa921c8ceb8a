"""Counters of an edge, read at any time without a call to either end."""

from __future__ import annotations

from dora_node_api.frozen import Frozen
from dora_node_api.transport.shared import layout
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.queue import QueueEnds
from dora_node_api.transport.shared.specs import QueueSpec


class Histogram(Frozen):
    """Latencies from send to receive, log-linear (within 25 %), merged by adding counts."""

    counts: tuple[int, ...] = ()

    @property
    def total(self) -> int:
        return sum(self.counts)

    def merged(self, other: Histogram) -> Histogram:
        """Return the histogram of both."""
        longer = max(len(self.counts), len(other.counts))
        own = self.counts + (0,) * (longer - len(self.counts))
        added = other.counts + (0,) * (longer - len(other.counts))
        return Histogram(tuple(a + b for a, b in zip(own, added, strict=True)))

    def bounded(self) -> tuple[tuple[int, int], ...]:
        """Return upper bound in nanoseconds and count of each bucket that is not empty."""
        return tuple(
            (layout.bucket_start(index + 1), count)
            for index, count in enumerate(self.counts)
            if count
        )

    def quantile(self, fraction: float) -> float | None:
        """Return the seconds below which ``fraction`` of the latencies are; None without messages.

        Exact to the width of a bucket (25 %); ``fraction`` is between 0 and 1.
        """
        total = self.total
        if not total:
            return None
        rank = max(1, -(-int(fraction * total * 1_000_000) // 1_000_000))
        seen = 0
        for index, count in enumerate(self.counts):
            seen += count
            if seen >= rank:
                middle = layout.bucket_start(index) + layout.bucket_start(index + 1)
                return middle / 2e9
        return layout.bucket_start(len(self.counts)) / 1e9


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
    latency: Histogram


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
        latency=Histogram(tuple(buckets)),
    )
