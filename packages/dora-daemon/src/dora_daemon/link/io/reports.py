"""What the runner is told of peers and streams: what changed, and not too often."""

from __future__ import annotations

from collections.abc import Callable

from dora_daemon.link.io.messages import PeerChanged, StreamCount, StreamCounts, ToRunner
from dora_daemon.link.streams.streams import Streams

_EVERY_NS = 1_000_000_000


class Reports:
    """Remembers what was said last. Used by the main thread alone."""

    def __init__(self, tell: Callable[[ToRunner], None]) -> None:
        self._tell = tell
        self._peers: dict[str, PeerChanged] = {}
        self._counts: dict[tuple[str, str, str, str], StreamCount] = {}
        self._counted_ns = 0
        self._lost = 0

    def peer(self, report: PeerChanged) -> None:
        """Say it if anything of it is new."""
        if self._peers.get(report.machine) != report:
            self._peers[report.machine] = report
            self._tell(report)

    def counts(self, streams: Streams, now: int) -> None:
        """Counters that changed, at most once a second; ``now`` 0: at once.

        At once, too, when anything was lost: a link that is killed must not take the news along.
        """
        lost = streams.lost
        if now and lost == self._lost and now - self._counted_ns < _EVERY_NS:
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
            self._tell(StreamCounts(streams=tuple(changed)))
