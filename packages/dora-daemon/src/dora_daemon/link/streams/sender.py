"""A stream that leaves this machine: read from its queue and sent as the window allows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, cast

from dora_config.dataflow.compression import Compression
from dora_daemon.link.protocol import frames
from dora_daemon.link.protocol.frames import FrameKind
from dora_daemon.link.protocol.hello import EnteringStream, LeavingStream
from dora_daemon.link.protocol.path_rate import MIN_IN_FLIGHT, PathRate
from dora_daemon.link.protocol.priority import Priority
from dora_daemon.link.protocol.windows import SendWindow
from dora_daemon.link.streams.large_message import LargeSender
from dora_daemon.link.streams.sender_thread import FrameSink, Outbox, SenderThread, Turn
from dora_node_api.transport.consumer.delivery import Delivery
from dora_node_api.transport.consumer.journal import (
    MAX_IMAGE,
    ImageDelivery,
    LinkReceiver,
)
from dora_node_api.transport.shared.errors import BrokenRecord
from dora_node_api.transport.shared.layout import RecordKind

MIN_WINDOW: Final = 32
"""Messages that may be in flight whatever the queue's bound is."""


class Unacknowledged:
    """A message that may have to be sent again: its image, or its delivery.

    Small messages that the queue's journal notes have a delivery: the next link process finds them
    in shared memory if this one is killed.
    """

    __slots__ = ("delivery", "flags", "image", "sent_ns")

    def __init__(self, image: bytes, sent_ns: int, flags: int, delivery: Delivery | None) -> None:
        self.image = image
        self.sent_ns = sent_ns
        self.flags = flags
        self.delivery = delivery


class StreamSender:
    """Reads one queue. A `SenderThread` gives it turns; other threads call the rest."""

    def __init__(
        self,
        number: int,
        node: str,
        output: str,
        sink: FrameSink,
        receiver: LinkReceiver,
        *,
        window_messages: int,
        window_bytes: int,
        note: Callable[[str], None],
        compression: Compression | None = None,
    ) -> None:
        self.number = number
        self.node = node
        self.output = output
        self.queue = receiver.spec.queue
        self.receiver = receiver
        self.sends_large = False
        """Whether the stream has sent a large message, or compresses: then it has a thread of its
        own."""
        self.thread: SenderThread | None = None
        self._sink = sink
        self._note = note
        self._images: LinkReceiver | None = None if receiver.spec.backpressure else receiver
        where = f"{node}/{output}"
        self._large = LargeSender(
            number, sink, stops=self._stops, note=lambda text: note(f"{where}: {text}")
        )
        self.compress(compression)
        settled = receiver.settled
        window_bytes = min(window_bytes, receiver.spec.hold_limit)
        messages = min(window_messages, max(MIN_WINDOW, 2 * receiver.spec.bound))
        self.window: SendWindow[Unacknowledged] = SendWindow(messages, window_bytes, last=settled)
        self._rate: PathRate | None = None
        """Exists once it has sent a large message; until then the window alone limits it."""
        self._lock = threading.Lock()
        self._resume: EnteringStream | None = None
        self._open = False
        self._discard = False
        self._ended = False
        self._taking_over = True
        self._last_image = receiver.last_image
        """Last message that an earlier process has read and not noted."""
        self._first_large: Delivery | None = None
        """The first large message, until the stream has a thread of its own."""
        self._close_receiver = False
        self._forget = False
        self.messages = 0
        self.bytes = 0
        self.lost = 0
        self.resent = 0
        self._finished = threading.Event()

    # --- called by other threads ------------------------------------------------------------------

    def leaving(self) -> LeavingStream:
        """Return this stream's entry in our hello."""
        with self._lock:
            return LeavingStream(
                window=self.window.messages, number=self.number, node=self.node, output=self.output,
                given_up=self.window.given_up,
            )  # fmt: skip

    def resume(self, entering: EnteringStream) -> None:
        """Begin a round: send again what the peer has not accepted, then continue."""
        with self._lock:
            self._resume = entering
            self._open = True
            self._discard = not entering.listening
        self._wake()

    def pause(self) -> None:
        """Stop sending: the session is missing, or the peer does not expect this stream yet."""
        with self._lock:
            self._open = False
            self._resume = None

    def discard(self) -> None:
        """Drop all messages, so that the producer need not wait: the consumer has ended."""
        with self._lock:
            self._open = True
            self._discard = True
            self._resume = None
            self.lost += self._give_up()
        self._wake()

    def acknowledged(self, sequence: int, now: int, round_trip_ns: int) -> None:
        """Handle an acknowledgement: the peer has stored everything up to this number."""
        with self._lock:
            was_open = self.window.open
            if self._rate is not None:
                limit = self._rate.acknowledged(sequence, now, round_trip_ns)
                if limit is not None:
                    self.window.restrict(limit)
            self._acknowledge(sequence)
            now_open = self.window.open
        if now_open and not was_open:
            self._wake()

    def _acknowledge(self, sequence: int) -> int:
        count = self.window.acknowledge(sequence)
        if not self._taking_over:
            self.receiver.settle(self.window.given_up)
        return count

    def _give_up(self) -> int:
        return self._acknowledge(self.window.last)

    def compress(self, compression: Compression | None) -> None:
        """Compress messages from now on; None: send them as they are."""
        if compression is not None:
            self._become_large()
        self._large.compress(compression)

    def _become_large(self) -> None:
        self.sends_large = True
        self._images = None  # its small messages must not use the low-latency connection

    @property
    def wire_bytes(self) -> int:
        """Bytes of the messages as they were sent."""
        return self.bytes - self._large.saved

    @property
    def uncompressed(self) -> str:
        """Why the last message was not compressed although its readers name a codec."""
        return self._large.uncompressed

    def unsent(self) -> int:
        """Count messages that wait in the queue or are unacknowledged."""
        taken = self._taking_over + (self._first_large is not None)
        return self.receiver.pending() + len(self.window) + taken

    @property
    def waiting(self) -> int:
        return len(self.window)

    def end(self, *, close: bool, forget: bool = True) -> None:
        """End the stream. Its thread uses the receiver until `ended`.

        ``close``: close the receiver. ``forget``: settle unacknowledged messages; otherwise the
        next link process sends them again.
        """
        self._close_receiver = close
        self._forget = forget
        self._ended = True
        self._wake()

    @property
    def ended(self) -> bool:
        """Whether the thread has left the stream; a put may delay it by seconds."""
        return self._finished.is_set()

    def join(self, seconds: float) -> None:
        """Wait at most ``seconds`` until the thread has left the stream."""
        self._finished.wait(max(0.0, seconds))

    def _wake(self) -> None:
        if self.thread is not None:
            self.thread.wake()

    # --- the thread -------------------------------------------------------------------------------

    def work(self, outbox: Outbox) -> Turn:
        """Send what can be sent; other streams get their turn after a limit."""
        if self._ended:
            return Turn.ENDED
        if self._taking_over:
            self._take_over()
        if self._resume is not None:
            self._resend(outbox)
            return Turn.AGAIN
        if not self._open or not (self._discard or self.window.open):
            return Turn.WAKE
        if (first := self._first_large) is not None:
            self._first_large = None
            if self._discard:
                self._drop(first.sequence)
            else:
                self._take_alone(first)
            return Turn.AGAIN
        return self._take(outbox)

    def send_only(self) -> bool:
        """Send the only message that waits, if it is small and may be sent at once.

        The usual case of a stream with pauses, in few instructions: it does what `work` and
        `Outbox.flush` do. False, with nothing sent, otherwise; then call `work`.
        """
        receiver, window = self._images, self.window
        if (
            receiver is None
            or not self._open
            or self._discard
            or self._resume is not None
            or self._ended
            or not window.open
        ):
            return False
        try:
            taken = receiver.read_only()
        except BrokenRecord as error:
            self._note(f"{self.node}/{self.output}: {error}")
            return False
        if taken is None:
            return False
        sequence, sent_ns, flags, image, nbytes = taken
        with self._lock:
            previous = window.last
            window.add(sequence, len(image), Unacknowledged(image, sent_ns, flags, None))
        sent = self._sink.send_image(self.number, sequence, previous, sent_ns, flags, image)
        # Settle after the send, which is urgent: `read_only` has already consumed the record, so a
        # process that is killed in between loses nothing more.
        receiver.settle_only()
        if not sent:
            self.stop_sending()
        self.messages += 1
        self.bytes += nbytes
        return True

    def finish(self) -> None:
        """Leave the queue permanently: the thread does not use the stream any more."""
        if self._forget:
            with self._lock:
                self._give_up()
        if self._close_receiver:
            self.receiver.close()
        self._finished.set()

    def _take_over(self) -> None:
        """Add the messages that a killed link process had noted to the window."""
        taken = self.receiver.take_over()
        with self._lock:
            for delivery in taken:
                item = Unacknowledged(b"", delivery.sent_ns, delivery.flags, delivery)
                self.window.add(delivery.sequence, delivery.nbytes, item)
            self._taking_over = False
            if self._discard:
                self.lost += self._give_up()

    def _receive(self) -> Delivery | ImageDelivery | None:
        while True:
            try:
                return cast("Delivery | ImageDelivery | None", self.receiver.receive())
            except BrokenRecord as error:
                self._note(f"{self.node}/{self.output}: {error}")

    def _take(self, outbox: Outbox) -> Turn:
        """Take waiting messages: small ones into the outbox, or one large one."""
        while (delivery := self._receive()) is not None:
            self.messages += 1
            self.bytes += delivery.nbytes
            if self._discard:
                self._drop(delivery.sequence)
                return Turn.AGAIN
            if isinstance(delivery, Delivery) and not _is_small(delivery):
                outbox.flush()
                if delivery.kind is RecordKind.DATA and not self.sends_large:
                    # Send it in the next turn, on its own thread, so that no other stream waits.
                    self._become_large()
                    self._first_large = delivery
                    return Turn.AGAIN
                self._take_alone(delivery)
                return Turn.AGAIN
            self._take_small(delivery, outbox)
            if outbox.full or self._resume is not None or not self.window.open:
                return Turn.AGAIN
        return Turn.MESSAGE

    def _drop(self, sequence: int) -> None:
        with self._lock:
            self.window.add(sequence, 0, Unacknowledged(b"", 0, 0, None))
            self._give_up()

    def _take_small(self, delivery: Delivery | ImageDelivery, outbox: Outbox) -> None:
        """Add a small message to the window and the outbox."""
        if isinstance(delivery, ImageDelivery):
            image, kept = delivery.image, None
        else:
            image, kept = b"", delivery
        sequence = delivery.sequence
        item = Unacknowledged(image, delivery.sent_ns, delivery.flags, kept)
        with self._lock:
            previous = self.window.last
            self.window.add(sequence, len(image) or delivery.nbytes, item)
        self._put_image(outbox, sequence, previous, item)

    def _put_image(
        self, outbox: Outbox, sequence: int, previous: int, item: Unacknowledged
    ) -> None:
        image = (item.image,) if item.delivery is None else item.delivery.image_parts()
        size = sum(map(len, image))
        head = frames.image_head(self.number, sequence, previous, item.sent_ns, item.flags, size)
        outbox.add(self, head, image, size, item)

    def _take_alone(self, delivery: Delivery) -> None:
        flags = delivery.flags
        item = Unacknowledged(b"", delivery.sent_ns, flags, delivery)
        with self._lock:
            previous = self.window.last
            if delivery.kind is RecordKind.DATA:
                if self._rate is None:
                    self._rate = PathRate()
                    self.window.restrict(MIN_IN_FLIGHT)
                self._rate.sent(delivery.sequence, delivery.nbytes, time.monotonic_ns())
            self.window.add(delivery.sequence, delivery.nbytes, item)
        self._send_alone(delivery, previous, flags)

    def _send_alone(self, delivery: Delivery, previous: int, flags: int) -> None:
        if delivery.kind is RecordKind.DATA:
            self._become_large()
            if not self._large.send(delivery, previous, flags):
                self.stop_sending()
            return
        sink = self._sink
        head = frames.head(FrameKind.LIFECYCLE, sink.link_id, sink.their_link, stream=self.number)
        body = frames.lifecycle_body(delivery.sequence, previous, delivery.kind, delivery.error)
        if not sink.send(Priority.SMALL, head + body):
            self.stop_sending()

    def _stops(self) -> bool:
        """Whether the rest of a message is not sent in this round."""
        return self._resume is not None or self._ended

    def stop_sending(self) -> None:
        """Wait for the next round: the session is missing."""
        with self._lock:
            if self._resume is None and not self._discard:
                self._open = False

    def _resend(self, outbox: Outbox) -> None:
        with self._lock:
            entering, self._resume = self._resume, None
            if entering is None:
                return
            self._large.restart()
            if self._rate is not None:
                self._rate.restart()
            self._acknowledge(entering.stored)
            again = list(self.window.after(entering.accepted))
            # What an earlier process has read, and neither sent nor noted, is lost.
            lost = self._last_image - max(entering.accepted, self.window.given_up)
            self.lost += max(0, lost - sum(first <= self._last_image for first, _, _ in again))
            self._last_image = 0
            if not len(self.window):
                # No message in the window follows those given up since then.
                self.window.last = min(self.window.last, entering.accepted)
        for sequence, previous, item in again:
            if self._interrupted():
                return
            self.resent += 1
            delivery = item.delivery
            if delivery is not None and not _is_small(delivery):
                outbox.flush()
                self._send_alone(delivery, previous, item.flags)
                continue
            self._put_image(outbox, sequence, previous, item)
            if outbox.full:
                outbox.flush()

    def _interrupted(self) -> bool:
        return self._resume is not None or self._ended or not self._open


def _is_small(delivery: Delivery) -> bool:
    """Return whether a message is sent as an image."""
    return delivery.kind is RecordKind.DATA and delivery.nbytes <= MAX_IMAGE
