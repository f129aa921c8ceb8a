"""All streams of the link: those that the runner lists and whose queues have arrived."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from dora_daemon.link.io.node_client import NodeClient
from dora_daemon.link.peers.peer import PeerLink
from dora_daemon.link.protocol.messages import IncomingStream, Outgoing, StreamCount, ToRunner
from dora_daemon.link.streams.receiver import StreamReceiver
from dora_daemon.link.streams.sender import StreamSender
from dora_daemon.link.streams.sender_thread import SenderThread

_END_SECONDS = 1.0
"""Seconds for the threads of streams to end."""

Key = tuple[str, str, str]
"""Machine, node, output."""


class StreamTable:
    """Begins and ends streams. Used by the main thread only."""

    def __init__(
        self,
        node: NodeClient,
        *,
        window_messages: int,
        window_bytes: int,
        send: Callable[[ToRunner], None],
        note: Callable[[str], None],
    ) -> None:
        self._node = node
        self._window_messages = window_messages
        self._window_bytes = window_bytes
        self._send = send
        self._note = note
        self._wanted_out: tuple[Outgoing, ...] = ()
        self._wanted_in: tuple[IncomingStream, ...] = ()
        self._numbers = 0
        self.outgoing: dict[Key, StreamSender] = {}
        self.incoming: dict[Key, StreamReceiver] = {}
        self._threads: dict[str, SenderThread] = {}
        self._ending: list[tuple[Key, StreamSender | StreamReceiver]] = []
        """Removed streams whose threads may still use a queue, which is reserved until they end."""

    def want_outgoing(self, streams: Iterable[Outgoing]) -> None:
        """Set the list of streams that leave; `settle` applies it."""
        self._wanted_out = tuple(streams)

    def want_incoming(self, streams: Iterable[IncomingStream]) -> None:
        """Set the list of streams that enter; `settle` applies it."""
        self._wanted_in = tuple(streams)

    def settle(self, peers: Mapping[str, PeerLink]) -> None:
        """Begin and end streams as listed, and pass each peer its streams."""
        self._ending = [(key, stream) for key, stream in self._ending if not stream.ended]
        self._settle_outgoing(peers)
        self._settle_incoming(peers)
        self._close_removed()
        for machine, peer in peers.items():
            going = {k[1:]: s for k, s in self.outgoing.items() if k[0] == machine}
            coming = {k[1:]: s for k, s in self.incoming.items() if k[0] == machine and s.ready}
            peer.set_streams(going, coming)

    def _settle_outgoing(self, peers: Mapping[str, PeerLink]) -> None:
        wanted = {(s.machine, s.node, s.output): s for s in self._wanted_out}
        for key, stream in list(self.outgoing.items()):
            want = wanted.get(key)
            if want is None or want.queue != stream.queue or key[0] not in peers:
                del self.outgoing[key]
                stream.end(close=False)
                self._ending.append((key, stream))
            else:
                stream.compress(want.compress)
        busy = self._queues_of(stream for _, stream in self._ending)
        for key, want in wanted.items():
            receiver = self._node.receivers.get(want.queue)
            peer = peers.get(want.machine)
            if key in self.outgoing or receiver is None or peer is None or want.queue in busy:
                continue
            self._numbers += 1
            self.outgoing[key] = StreamSender(
                self._numbers, want.node, want.output, peer.sender, receiver,
                window_messages=self._window_messages, window_bytes=self._window_bytes,
                note=self._note, compression=want.compress,
            )  # fmt: skip
            self._thread_to(want.machine, peer).add(self.outgoing[key])

    def _thread_to(self, machine: str, peer: PeerLink) -> SenderThread:
        """Return the thread that the streams to a peer share."""
        thread = self._threads.get(machine)
        if thread is None or thread.sink is not peer.sender:
            thread = SenderThread(peer.sender, f"out {machine}", self._note)
            self._threads[machine] = thread
        return thread

    def _settle_incoming(self, peers: Mapping[str, PeerLink]) -> None:
        wanted = {(s.machine, s.node, s.output): s for s in self._wanted_in}
        for key, stream in list(self.incoming.items()):
            if key not in wanted:
                del self.incoming[key]
                stream.end()
                if not stream.ended:
                    self._ending.append((key, stream))
        busy = {key for key, stream in self._ending if isinstance(stream, StreamReceiver)}
        for key, want in wanted.items():
            peer = peers.get(want.machine)
            if key not in self.incoming and peer is not None and key not in busy:
                self.incoming[key] = StreamReceiver(
                    *key, peer, self._node.forwarder, send=self._send, note=self._note
                )
            if key in self.incoming:
                self.incoming[key].wanted = frozenset(want.queues)
                if peer is not None:
                    self.incoming[key].use_peer(peer)

    def _close_removed(self) -> None:
        """Close receivers of queues that are gone, once no thread reads them."""
        streams = [*self.outgoing.values(), *(stream for _, stream in self._ending)]
        busy = self._queues_of(streams)
        for receiver in [r for r in self._node.removed if r.spec.queue not in busy]:
            self._node.removed.remove(receiver)
            receiver.close()

    @staticmethod
    def _queues_of(streams: Iterable[StreamSender | StreamReceiver]) -> set[int]:
        return {stream.queue for stream in streams if isinstance(stream, StreamSender)}

    def fed(self, peers: Mapping[str, PeerLink]) -> tuple[int, ...]:
        """Return the queues of incoming streams that lose no message of their peers from now on."""
        found: list[int] = []
        for want in self._wanted_in:
            peer = peers.get(want.machine)
            stream = self.incoming.get((want.machine, want.node, want.output))
            if peer is None or (stream is not None and stream.ready and peer.informed):
                found += want.queues
        return tuple(found)

    @property
    def ending(self) -> bool:
        """Whether removed streams have not ended yet."""
        return bool(self._ending)

    @property
    def overdue(self) -> bool:
        """Whether a stream has ended, so that `settle` can replace it."""
        return any(stream.ended for _, stream in self._ending)

    def source_ended(self, machine: str) -> None:
        """Close all inputs from a machine whose part has ended and does not restart."""
        for key, stream in self.incoming.items():
            if key[0] == machine:
                stream.source_ended()

    def unsent(self, gone: Callable[[str], bool]) -> int:
        """Count queued and unacknowledged messages to machines that are not ``gone``."""
        return sum(s.unsent() for key, s in self.outgoing.items() if not gone(key[0]))

    @property
    def lost(self) -> int:
        """Messages lost on all streams."""
        out = sum(s.lost for s in self.outgoing.values())
        return out + sum(s.lost for s in self.incoming.values())

    def counts(self) -> list[StreamCount]:
        """Return every stream's counters."""
        out = [
            StreamCount(
                machine=key[0], node=key[1], output=key[2], direction="out", messages=s.messages,
                bytes=s.bytes, lost=s.lost, waiting=s.waiting, resent=s.resent,
                wire_bytes=s.wire_bytes, uncompressed=s.uncompressed,
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
        """End all threads: none may use a queue after this."""
        for going in self.outgoing.values():
            going.end(close=True, forget=False)
        for coming in self.incoming.values():
            coming.end()
        end = time.monotonic() + _END_SECONDS
        ending = (stream for _, stream in self._ending)
        for stream in (*self.outgoing.values(), *self.incoming.values(), *ending):
            stream.join(end - time.monotonic())
