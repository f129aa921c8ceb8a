"""Which streams there are: what the runner wants, as far as its queues and routes have come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from dora_daemon.link.io.messages import Incoming, Outgoing, StreamCount
from dora_daemon.link.io.node_client import NodeSide
from dora_daemon.link.io.peer import PeerLink
from dora_daemon.link.streams.receiver import IncomingStream, Surroundings
from dora_daemon.link.streams.sender import OutgoingStream

_END_SECONDS = 1.0

Key = tuple[str, str, str]
"""Machine, node, output."""


class Streams:
    """All streams of the link. Used by its main thread alone."""

    def __init__(
        self,
        node: NodeSide,
        around: Surroundings,
        *,
        window_messages: int,
        window_bytes: int,
        note: Callable[[str], None],
    ) -> None:
        self._node = node
        self._around = around
        self._window_messages = window_messages
        self._window_bytes = window_bytes
        self._note = note
        self._wanted_out: tuple[Outgoing, ...] = ()
        self._wanted_in: tuple[Incoming, ...] = ()
        self._numbers = 0
        self.outgoing: dict[Key, OutgoingStream] = {}
        self.incoming: dict[Key, IncomingStream] = {}
        self._ending: list[tuple[Key, OutgoingStream | IncomingStream]] = []
        """Whose threads may still use a queue, so that no other may begin there."""

    def want_outgoing(self, streams: Iterable[Outgoing]) -> None:
        self._wanted_out = tuple(streams)

    def want_incoming(self, streams: Iterable[Incoming]) -> None:
        self._wanted_in = tuple(streams)

    def settle(self, peers: dict[str, PeerLink]) -> None:
        """Begin and end streams as wanted, and tell each peer which ones it has."""
        self._ending = [(key, stream) for key, stream in self._ending if not stream.ended]
        self._settle_outgoing(peers)
        self._settle_incoming(peers)
        self._close_removed()
        for machine, peer in peers.items():
            going = {k[1:]: s for k, s in self.outgoing.items() if k[0] == machine}
            coming = {k[1:]: s for k, s in self.incoming.items() if k[0] == machine and s.ready}
            peer.set_streams(going, coming)

    def _settle_outgoing(self, peers: dict[str, PeerLink]) -> None:
        wanted = {(s.machine, s.node, s.output): s for s in self._wanted_out}
        for key, stream in list(self.outgoing.items()):
            want = wanted.get(key)
            if want is None or want.queue != stream.queue or key[0] not in peers:
                del self.outgoing[key]
                stream.end(close=False)
                self._ending.append((key, stream))
        busy = self._queues_of(stream for _, stream in self._ending)
        for key, want in wanted.items():
            receiver = self._node.receivers.get(want.queue)
            peer = peers.get(want.machine)
            if key in self.outgoing or receiver is None or peer is None or want.queue in busy:
                continue
            self._numbers += 1
            self.outgoing[key] = OutgoingStream(
                self._numbers, want.node, want.output, peer, receiver, self._node.board,
                window_messages=self._window_messages, window_bytes=self._window_bytes,
                note=self._note,
            )  # fmt: skip
            self.outgoing[key].start()

    def _settle_incoming(self, peers: dict[str, PeerLink]) -> None:
        wanted = {(s.machine, s.node, s.output): s for s in self._wanted_in}
        for key, stream in list(self.incoming.items()):
            if key not in wanted:
                del self.incoming[key]
                stream.end()
                if not stream.ended:
                    self._ending.append((key, stream))
        busy = {key for key, stream in self._ending if isinstance(stream, IncomingStream)}
        for key, want in wanted.items():
            if key not in self.incoming and want.machine in peers and key not in busy:
                self.incoming[key] = IncomingStream(*key, self._node.forwarder, self._around)
            if key in self.incoming:
                self.incoming[key].wanted = frozenset(want.queues)

    def _close_removed(self) -> None:
        """Receivers of queues that are gone, once no thread reads them."""
        streams = [*self.outgoing.values(), *(stream for _, stream in self._ending)]
        busy = self._queues_of(streams)
        for receiver in [r for r in self._node.removed if r.spec.queue not in busy]:
            self._node.removed.remove(receiver)
            receiver.close()

    @staticmethod
    def _queues_of(streams: Iterable[OutgoingStream | IncomingStream]) -> set[int]:
        return {stream.queue for stream in streams if isinstance(stream, OutgoingStream)}

    @property
    def ending(self) -> bool:
        """Whether streams take their time to end."""
        return bool(self._ending)

    @property
    def overdue(self) -> bool:
        """Whether one has ended since, so that `settle` can go on in its place."""
        return any(stream.ended for _, stream in self._ending)

    def source_ended(self, machine: str) -> None:
        """Nothing more comes from a machine: its part has ended for good."""
        for key, stream in self.incoming.items():
            if key[0] == machine:
                stream.source_ended()

    def unsent(self, gone: Callable[[str], bool]) -> int:
        """Messages on their way to machines that are not ``gone``."""
        return sum(s.unsent() for key, s in self.outgoing.items() if not gone(key[0]))

    @property
    def lost(self) -> int:
        """Messages lost on all streams."""
        out = sum(s.lost for s in self.outgoing.values())
        return out + sum(s.lost for s in self.incoming.values())

    def counts(self) -> list[StreamCount]:
        """Every stream's counters."""
        out = [
            StreamCount(
                machine=key[0], node=key[1], output=key[2], direction="out", messages=s.messages,
                bytes=s.bytes, lost=s.lost, waiting=s.waiting, resent=s.resent,
            )
            for key, s in self.outgoing.items()
        ]  # fmt: skip
        into = [
            StreamCount(
                machine=key[0], node=key[1], output=key[2], direction="in", messages=s.messages,
                bytes=s.bytes, lost=s.lost, waiting=s.waiting, invalid=s.invalid,
            )
            for key, s in self.incoming.items()
        ]  # fmt: skip
        return out + into

    def end(self) -> None:
        """The process is about to end: no thread may touch a queue any more."""
        for going in self.outgoing.values():
            going.end(close=True, forget=False)
        for coming in self.incoming.values():
            coming.end()
        end = time.monotonic() + _END_SECONDS
        ending = (stream for _, stream in self._ending)
        for stream in (*self.outgoing.values(), *self.incoming.values(), *ending):
            stream.join(end - time.monotonic())
