"""Which streams there are: what the runner wants, as far as its queues and routes have come."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dora_daemon.link.incoming import IncomingStream, Surroundings
from dora_daemon.link.messages import Incoming, Outgoing, StreamCount
from dora_daemon.link.node_side import NodeSide
from dora_daemon.link.outgoing import OutgoingStream
from dora_daemon.link.peer import PeerLink

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

    def want_outgoing(self, streams: Iterable[Outgoing]) -> None:
        self._wanted_out = tuple(streams)

    def want_incoming(self, streams: Iterable[Incoming]) -> None:
        self._wanted_in = tuple(streams)

    def settle(self, peers: dict[str, PeerLink]) -> None:
        """Begin and end streams as wanted, and tell each peer which ones it has."""
        self._settle_outgoing(peers)
        self._settle_incoming(peers)
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
                stream.end(close=stream.queue not in self._node.receivers)
        for key, want in wanted.items():
            receiver = self._node.receivers.get(want.queue)
            peer = peers.get(want.machine)
            if key in self.outgoing or receiver is None or peer is None:
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
        for key, want in wanted.items():
            if key not in self.incoming and want.machine in peers:
                self.incoming[key] = IncomingStream(*key, self._node.forwarder, self._around)
            if key in self.incoming:
                self.incoming[key].wanted = frozenset(want.queues)

    def source_ended(self, machine: str) -> None:
        """Nothing more comes from a machine: its part has ended for good."""
        for key, stream in self.incoming.items():
            if key[0] == machine:
                stream.source_ended()

    def unsent(self, gone: Callable[[str], bool]) -> int:
        """Messages on their way to machines that are not ``gone``."""
        return sum(s.unsent() for key, s in self.outgoing.items() if not gone(key[0]))

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
