"""Reports to the runner: changes of peers and of streams' counters."""

from __future__ import annotations

from collections.abc import Callable

from dora_config.protocol.links import PeerReport
from dora_daemon.link.peers.stream_table import StreamTable
from dora_daemon.link.protocol.messages import (
    PeerChanged,
    QueuesFed,
    StreamCount,
    StreamCounts,
    ToRunner,
)

_INTERVAL_NS = 1_000_000_000
"""Nanoseconds between two reports of counters."""


class Reports:
    """Sends what differs from the last report. Used by the main thread only."""

    def __init__(self, send: Callable[[ToRunner], None]) -> None:
        self._send = send
        self._peers: dict[str, PeerReport] = {}
        self._counts: dict[tuple[str, str, str, str], StreamCount] = {}
        self._counted_ns = 0
        self._lost = 0
        self._fed: tuple[int, ...] = ()

    def peer(self, report: PeerReport) -> None:
        """Send the state of a peer if it has changed."""
        if self._peers.get(report.machine) != report:
            self._peers[report.machine] = report
            self._send(PeerChanged(peer=report))

    def fed(self, queues: tuple[int, ...]) -> None:
        """Send which queues are fed if that has changed."""
        if self._fed != queues:
            self._fed = queues
            self._send(QueuesFed(queues=queues))

    def counts(self, streams: StreamTable, now: int) -> None:
        """Send counters that changed, at most once a second; at once if ``now`` is 0 or a message
        was lost, which must not stay unreported if the link is killed."""
        lost = streams.lost
        if now and lost == self._lost and now - self._counted_ns < _INTERVAL_NS:
            return
        self._counted_ns = now
        self._lost = lost
        changed = []
        for count in streams.counts():
            key = (count.machine, count.node, count.output, count.direction)
            if self._counts.get(key) != count:
                self._counts[key] = count
                changed.append(count)
        if changed:
            self._send(StreamCounts(streams=tuple(changed)))
