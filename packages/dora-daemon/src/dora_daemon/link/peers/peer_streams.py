"""Streams to and from one peer: begins their rounds and passes frames to them."""

from __future__ import annotations

from collections.abc import Iterable

from dora_daemon.link.protocol import frames
from dora_daemon.link.protocol.handshake import LinkHandshake
from dora_daemon.link.protocol.hello import EnteringStream, LeavingStream
from dora_daemon.link.protocol.stream_rounds import Source, StreamRounds
from dora_daemon.link.streams.receiver import StreamReceiver
from dora_daemon.link.streams.sender import StreamSender


class PeerStreams:
    """The streams of one peer by source, and by their number in frames.

    The peer's lock guards changes. Frames arrive without it, on Zenoh's threads: so a table by
    number is replaced, or gets one more entry.
    """

    def __init__(self) -> None:
        self.outgoing: dict[Source, StreamSender] = {}
        self.incoming: dict[Source, StreamReceiver] = {}
        self.incoming_by_number: dict[int, StreamReceiver] = {}
        self._outgoing_by_number: dict[int, StreamSender] = {}
        self._rounds = StreamRounds()

    def set(
        self, outgoing: dict[Source, StreamSender], incoming: dict[Source, StreamReceiver]
    ) -> None:
        """Replace the streams; `begin_rounds` begins those that are new."""
        self.outgoing = outgoing
        self.incoming = incoming
        self._outgoing_by_number = {s.number: s for s in outgoing.values()}
        self._rounds.keep(incoming)

    # --- rounds -----------------------------------------------------------------------------------

    def begin_rounds(self, known: LinkHandshake, run_id: str) -> bool:
        """Begin or resume the streams that the peer's hello lists; pause the others.

        ``run_id``: of our part. Return whether an incoming stream began: our hello lists what it
        has stored, and has changed.
        """
        began = self._begin_incoming(known)
        self._resume_outgoing(known, run_id)
        return began

    def _begin_incoming(self, known: LinkHandshake) -> bool:
        theirs = known.their_hello
        if theirs is None:
            return False
        began = False
        numbers = {source: stream.number for source, stream in self.incoming.items()}
        for leaving, begins in self._rounds.beginning(known.their_link, theirs, numbers):
            stream = self.incoming[leaving.node, leaving.output]
            if begins:
                stream.begin_round(theirs.run_id, leaving)
                began = True
            self.incoming_by_number[leaving.number] = stream
        return began

    def _resume_outgoing(self, known: LinkHandshake, run_id: str) -> None:
        numbers = {source: stream.number for source, stream in self.outgoing.items()}
        for source, entry in self._rounds.resuming(known, run_id, numbers):
            if entry is None:
                self.outgoing[source].pause()
            else:
                self.outgoing[source].resume(entry)

    def interrupt(self, *, pause: bool) -> None:
        """End the present pair of rounds. ``pause``: outgoing streams wait for the next one."""
        self._rounds.interrupt()
        if pause:
            for stream in self.outgoing.values():
                stream.pause()

    def forget_numbers(self) -> None:
        """Ignore frames until the streams begin: the peer's numbers are of another round."""
        self.incoming_by_number = {}

    def forget_run(self) -> None:
        """Begin every stream again, because the peer's part was restarted."""
        self._rounds.forget()

    def discard(self) -> None:
        """Drop all outgoing messages: they have no readers."""
        for stream in self.outgoing.values():
            stream.discard()

    # --- frames -----------------------------------------------------------------------------------

    def images(self, frame: bytes, now: int) -> None:
        """Pass the small messages of an IMAGES frame to their streams."""
        for number, images in frames.read_images(frame):
            stream = self.incoming_by_number.get(number)
            if stream is not None:
                stream.images(frame, images, now)

    def acknowledged(self, acks: Iterable[tuple[int, int]], now: int, round_trip_ns: int) -> None:
        """Handle acknowledgements: the number of a stream, and what the peer has stored of it."""
        for number, sequence in acks:
            stream = self._outgoing_by_number.get(number)
            if stream is not None:
                stream.acknowledged(sequence, now, round_trip_ns)

    # --- state ------------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """Whether outgoing messages are unacknowledged."""
        return any(stream.waiting for stream in list(self.outgoing.values()))

    def small_unacknowledged(self) -> int:
        """Return the bytes in flight of streams that may use the low-latency connection."""
        streams = self._outgoing_by_number.values()
        return sum(stream.window.bytes_out for stream in streams if not stream.sends_large)

    def stored(self) -> list[tuple[int, int]]:
        """Return the acknowledgements of all incoming streams."""
        return [(s.number, s.stored) for s in list(self.incoming_by_number.values())]

    def leaving(self) -> tuple[LeavingStream, ...]:
        """Return the entries of outgoing streams in our hello."""
        return tuple(stream.leaving() for stream in self.outgoing.values())

    def entering(self) -> tuple[EnteringStream, ...]:
        """Return the entries of incoming streams in our hello."""
        return tuple(stream.entering() for stream in self.incoming.values())
