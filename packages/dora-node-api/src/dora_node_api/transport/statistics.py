"""Counters of an edge, read from outside at any time without a call to either end."""

from __future__ import annotations

from dora_node_api.frozen import Frozen
from dora_node_api.transport.board import Board
from dora_node_api.transport.queue import QueueEnds
from dora_node_api.transport.specs import QueueSpec


class Histogram(Frozen):
    """Latencies from send to take, log-linear (within 25 %), mergeable by adding counts."""

    counts: tuple[int, ...] = ()

    @property
    def total(self) -> int:
        return sum(self.counts)

    def merged(self, other: Histogram) -> Histogram:
        raise NotImplementedError

    def quantile(self, fraction: float) -> float | None:
        """Seconds below which ``fraction`` of the messages stayed; None without messages."""
        raise NotImplementedError


class EdgeStatistics(Frozen):
    """What passed over one edge since it was made. `sent == received + dropped + queued`."""

    sent: int
    received: int
    """Handed out to the consumer."""
    dropped: int
    queued: int
    bytes_sent: int
    bytes_received: int
    evicted: int
    """Of the dropped ones, those that the producer took out to make room."""
    broken: int
    copied: int
    blocked: bool
    """The producer waits for room at this moment."""
    blocked_seconds: float
    last_arrival_ns: int
    """CLOCK_MONOTONIC of the last message taken; 0 before the first."""
    latency: Histogram


def read_statistics(board: Board, spec: QueueSpec, ends: QueueEnds) -> EdgeStatistics:
    """Read an edge's counters; any process with the board and a read end may, at any time."""
    raise NotImplementedError
