"""State of the link over all its processes: endpoints, peers and counters of streams; pure."""

from __future__ import annotations

from typing import Literal

from dora_config.protocol.links import LinkCounters, LinkReport, PeerReport, PeerState
from dora_daemon.link.protocol.messages import (
    Failed,
    Listening,
    PeerChanged,
    StreamCount,
    StreamCounts,
)

StreamKey = tuple[str, str, str]
"""The other machine, node, output."""


class LinkView:
    """State of the link, updated by the messages of its processes."""

    def __init__(self) -> None:
        self.run_id = ""
        self.expected: tuple[str, ...] = ()
        """Other machines at the ends of the plan's edges."""
        self.plain = False
        """Whether the process listens without TLS."""
        self._endpoints: tuple[str, ...] = ()
        self._problem: str | None = None
        self._peers: dict[str, PeerReport] = {}
        self._counts: dict[tuple[StreamKey, str], StreamCount] = {}
        self._before: dict[tuple[StreamKey, str], StreamCount] = {}
        """Counters of ended processes; each process counts from 0."""

    @property
    def port(self) -> int | None:
        """Port of the last process, so that peers find the next one there."""
        for endpoint in self._endpoints:
            port = endpoint.rpartition(":")[2]
            if port.isdigit():
                return int(port)
        return None

    def update(self, message: Listening | Failed | PeerChanged | StreamCounts) -> None:
        """Apply one message."""
        match message:
            case Listening(endpoints=endpoints):
                self._endpoints = endpoints
                self._problem = None
            case Failed(reason=reason):
                self._problem = reason
            case PeerChanged(peer=peer):
                self._peers[peer.machine] = peer
            case StreamCounts(streams=streams):
                for count in streams:
                    key = (count.machine, count.node, count.output)
                    self._counts[key, count.direction] = count

    def link_ended(self) -> None:
        """Mark peers as lost until the next process connects to them."""
        reason = "the link process of this machine ended and is being restarted"
        for machine, peer in self._peers.items():
            if peer.state != "left":
                state = "lost" if peer.state == "connected" else peer.state
                self._peers[machine] = peer.model_copy(update={"state": state, "reason": reason})
        for key, count in self._counts.items():
            self._before[key] = _added(self._before.get(key), count)
        self._counts.clear()

    def peer_state(self, machine: str) -> PeerState | None:
        """Return the state of a peer; None before its first report."""
        peer = self._peers.get(machine)
        return None if peer is None else peer.state

    def report(self) -> LinkReport:
        """Return the state of the link with all expected peers."""
        machines = dict.fromkeys([*self.expected, *self._peers])
        return LinkReport(
            run_id=self.run_id,
            endpoints=self._endpoints,
            plain=self.plain,
            problem=self._problem,
            peers=tuple(self._peers.get(m, PeerReport(machine=m)) for m in machines),
        )

    def crossing(
        self, machine: str, node: str, output: str, direction: Literal["out", "in"]
    ) -> LinkCounters:
        """Return the counters of one stream over all link processes."""
        key = ((machine, node, output), direction)
        before, now = self._before.get(key), self._counts.get(key)
        if now is None:
            now = StreamCount(machine=machine, node=node, output=output, direction=direction)
        count = _added(before, now)
        return LinkCounters(
            machine=machine,
            messages=count.messages,
            lost=count.lost,
            waiting=now.waiting,
            resent=count.resent,
            invalid=count.invalid,
            raw_bytes=count.bytes if count.direction == "out" else 0,
            wire_bytes=count.wire_bytes,
            uncompressed=count.uncompressed,
        )


def _added(before: StreamCount | None, count: StreamCount) -> StreamCount:
    if before is None:
        return count
    names = ("messages", "bytes", "lost", "resent", "invalid", "wire_bytes")
    return count.model_copy(update={n: getattr(before, n) + getattr(count, n) for n in names})
