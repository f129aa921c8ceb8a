"""A stream that leaves this machine: read from its queue and sent as the window allows."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable
from typing import Final, Protocol, cast

from dora_daemon.link.io.thread_guard import guarded
from dora_daemon.link.protocol import frames
from dora_daemon.link.protocol.frames import FrameKind
from dora_daemon.link.protocol.hello import Entering, Leaving
from dora_daemon.link.protocol.priority import Priority, priority_for
from dora_daemon.link.protocol.windows import SendWindow
from dora_node_api.transport import Board, BrokenRecord, Delivery, Receiver, RecordKind, Waiter
from dora_node_api.transport.consumer.images import (
    LARGEST_IMAGE,
    ImageDelivery,
    image_of_delivery,
)
from dora_node_api.transport.consumer.journal import HoldingReceiver
from dora_node_api.transport.shared import layout

CHUNK: Final = 512 * 1024
"""Bytes of a data area in one frame: several frames are in flight at a time."""
BATCH: Final = 32 * 1024
"""Bytes of small messages from which on a batch is sent."""
LEAST_WINDOW: Final = 32
"""Messages that may be in flight whatever the queue's bound is."""


class FrameSink(Protocol):
    """Sends frames to a peer."""

    link_id: int

    @property
    def their_link(self) -> int:
        """Id of the peer's present link."""

    def send(self, priority: Priority, frame: bytes) -> bool:
        """Return False without a session; a new round follows."""

    def send_images(self, number: int, images: list[bytes]) -> bool:
        """Send small messages of a stream: heads and images in turn; as `send`."""


class Unacknowledged:
    """A message that may have to be sent again: its image if it is small, else its delivery.

    A backpressure stream keeps the delivery of small messages too: the next link process finds
    them in shared memory if this one is killed.
    """

    __slots__ = ("delivery", "flags", "image", "sent_ns")

    def __init__(self, image: bytes, sent_ns: int, flags: int, delivery: Delivery | None) -> None:
        self.image = image
        self.sent_ns = sent_ns
        self.flags = flags
        self.delivery = delivery


class StreamSender:
    """Reads one queue, on a thread of its own."""

    def __init__(
        self,
        number: int,
        node: str,
        output: str,
        sink: FrameSink,
        receiver: Receiver,
        board: Board,
        *,
        window_messages: int,
        window_bytes: int,
        note: Callable[[str], None],
    ) -> None:
        self.number = number
        self.node = node
        self.output = output
        self.queue = receiver.spec.queue
        self._sink = sink
        self._receiver = receiver
        self._note = note
        self._holding = receiver if isinstance(receiver, HoldingReceiver) else None
        settled = _last_read(receiver, board)
        if self._holding is not None:
            settled = self._holding.settled
            window_bytes = min(window_bytes, receiver.spec.hold_limit)
        messages = min(window_messages, max(LEAST_WINDOW, 2 * receiver.spec.bound))
        self.window: SendWindow[Unacknowledged] = SendWindow(messages, window_bytes, last=settled)
        self._lock = threading.Lock()
        self._resume: Entering | None = None
        self._open = False
        self._discard = False
        self._ended = False
        self._taking_over = self._holding is not None
        self._close_receiver = False
        self._forget = False
        self.messages = 0
        self.bytes = 0
        self.lost = 0
        self.resent = 0
        self._wake_read, self._wake_write = os.pipe()
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)
        self._thread = threading.Thread(
            target=guarded(self._run, note), name=f"out {node}/{output}", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    # --- called by other threads ------------------------------------------------------------------

    def leaving(self) -> Leaving:
        """Return this stream's entry in our hello."""
        with self._lock:
            return Leaving(
                window=self.window.messages, number=self.number, node=self.node, output=self.output,
                given_up=self.window.given_up,
            )  # fmt: skip

    def resume(self, entering: Entering) -> None:
        """Begin a round: send again what the peer has not accepted, then continue."""
        with self._lock:
            self._resume = entering
            self._open = True
            self._discard = not entering.listening
        self._wake()

    def pause(self) -> None:
        """Stop sending: there is no session, or the peer does not expect this stream yet."""
        with self._lock:
            self._open = False
            self._resume = None

    def discard(self) -> None:
        """Drop all messages, so that the producer need not wait: there is no consumer any more."""
        with self._lock:
            self._open = True
            self._discard = True
            self._resume = None
            self.lost += self._give_up()
        self._wake()

    def acknowledged(self, sequence: int) -> None:
        """Handle an acknowledgement: the peer has stored everything up to this number."""
        with self._lock:
            was_open = self.window.open
            self._acknowledge(sequence)
            now_open = self.window.open
        if now_open and not was_open:
            self._wake()

    def _acknowledge(self, sequence: int) -> int:
        count = self.window.acknowledge(sequence)
        if self._holding is not None and not self._taking_over:
            self._holding.settle(self.window.given_up)
        return count

    def _give_up(self) -> int:
        return self._acknowledge(self.window.last)

    def unsent(self) -> int:
        """Count messages that wait in the queue or are unacknowledged."""
        return self._receiver.pending() + len(self.window) + self._taking_over

    @property
    def waiting(self) -> int:
        return len(self.window)

    def end(self, *, close: bool, forget: bool = True) -> None:
        """Stop the thread. It uses the receiver until `ended`.

        ``close``: close the receiver. ``forget``: settle unacknowledged messages; otherwise the
        next link process sends them again.
        """
        self._close_receiver = close
        self._forget = forget
        self._ended = True
        self._wake()

    @property
    def ended(self) -> bool:
        """Whether the thread has ended; a put may delay it by seconds."""
        return self._ended and not self._thread.is_alive()

    def join(self, seconds: float) -> None:
        """Wait at most ``seconds`` for the end of the thread."""
        self._thread.join(max(0.0, seconds))

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._wake_write, b"w")

    # --- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        waiter = Waiter()
        waiter.add(self._receiver)
        waiter.add_fd(self._wake_read)
        blocked = select.poll()
        blocked.register(self._wake_read, select.POLLIN)
        if self._holding is not None:
            self._take_over(self._holding)
        while not self._ended:
            if self._resume is not None:
                self._resend()
                continue
            if not self._open or not (self._discard or self.window.open):
                blocked.poll()
                self._clear_wake()
                continue
            if not self._take() and self._wake_read in waiter.wait(None):
                self._clear_wake()
        waiter.close()
        if self._forget:
            with self._lock:
                self._give_up()
        if self._close_receiver:
            self._receiver.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _clear_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)

    def _take_over(self, receiver: HoldingReceiver) -> None:
        """Add the messages that a killed link process had read to the window."""
        taken = receiver.take_over()
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
                return cast("Delivery | ImageDelivery | None", self._receiver.receive())
            except BrokenRecord as error:
                self._note(f"{self.node}/{self.output}: {error}")

    def _take(self) -> bool:
        """Send the next message, in one frame with small ones that wait behind it.

        Returns False when no message waits.
        """
        delivery = self._receive()
        if delivery is None:
            return False
        images: list[bytes] = []
        size = 0
        while delivery is not None:
            self.messages += 1
            self.bytes += delivery.nbytes
            if self._discard:
                self._send_images(images)
                self._drop(delivery.sequence)
                return True
            if isinstance(delivery, Delivery) and not _is_small(delivery):
                self._send_images(images)
                self._take_alone(delivery)
                return True
            size += self._take_small(delivery, images)
            if size >= BATCH or self._resume is not None or not self.window.open:
                break
            delivery = self._receive()
        # A delivery pins memory of its producer; it must be released before the journal drops it.
        del delivery
        self._send_images(images)
        return True

    def _drop(self, sequence: int) -> None:
        with self._lock:
            self.window.add(sequence, 0, Unacknowledged(b"", 0, 0, None))
            self._give_up()

    def _take_small(self, delivery: Delivery | ImageDelivery, images: list[bytes]) -> int:
        """Add a small message to the window and to ``images``; return its size."""
        if isinstance(delivery, ImageDelivery):
            image, kept = delivery.image, None
        else:
            image = image_of_delivery(delivery)
            kept = None if self._holding is None else delivery
        sequence, size, flags = delivery.sequence, len(image), delivery.flags
        item = Unacknowledged(image, delivery.sent_ns, flags, kept)
        with self._lock:
            previous = self.window.last
            self.window.add(sequence, size, item)
        images += (frames.image_head(sequence, previous, delivery.sent_ns, flags, size), image)
        return size

    def _take_alone(self, delivery: Delivery) -> None:
        flags = delivery.flags
        item = Unacknowledged(b"", delivery.sent_ns, flags, delivery)
        with self._lock:
            previous = self.window.last
            self.window.add(delivery.sequence, delivery.nbytes, item)
        self._send_alone(delivery, previous, flags)

    def _send_images(self, images: list[bytes]) -> None:
        if images and not self._sink.send_images(self.number, images):
            self._stop_sending()

    def _send_alone(self, delivery: Delivery, previous: int, flags: int) -> None:
        if delivery.kind is RecordKind.DATA:
            self._send_large(delivery, previous, flags)
            return
        sink = self._sink
        head = frames.head(FrameKind.LIFECYCLE, sink.link_id, sink.their_link, stream=self.number)
        body = frames.lifecycle_body(delivery.sequence, previous, delivery.kind, delivery.error)
        self._send(Priority.SMALL, head + body)

    def _send_large(self, delivery: Delivery, previous: int, flags: int) -> None:
        sink = self._sink
        receiver = sink.their_link
        parts, data = delivery.take_apart()
        priority = priority_for(parts.nbytes)
        head = frames.head(FrameKind.DATA, sink.link_id, receiver, stream=self.number, flags=flags)
        begin = frames.data_head(head, delivery.sequence, previous, delivery.sent_ns, parts)
        if not self._send(priority, b"".join((begin, data[:CHUNK]))):
            return
        head = frames.head(FrameKind.CHUNK, sink.link_id, receiver, stream=self.number)
        for at in range(CHUNK, parts.nbytes, CHUNK):
            # A new round sends the whole message again.
            if self._resume is not None or self._ended:
                return
            begin = frames.chunk_head(head, delivery.sequence, at)
            if not self._send(priority, b"".join((begin, data[at : at + CHUNK]))):
                return

    def _send(self, priority: Priority, frame: bytes) -> bool:
        sent = self._sink.send(priority, frame)
        if not sent:
            self._stop_sending()
        return sent

    def _stop_sending(self) -> None:
        """Wait for the next round: there is no session."""
        with self._lock:
            if self._resume is None and not self._discard:
                self._open = False

    def _resend(self) -> None:
        with self._lock:
            entering, self._resume = self._resume, None
            if entering is None:
                return
            self._acknowledge(entering.stored)
            again = list(self.window.after(entering.accepted))
            if not len(self.window):
                # Messages given up since then precede no other message.
                self.window.last = min(self.window.last, entering.accepted)
        for sequence, previous, item in again:
            if self._interrupted():
                return
            self.resent += 1
            delivery = item.delivery
            if delivery is not None and not _is_small(delivery):
                self._send_alone(delivery, previous, item.flags)
                continue
            if delivery is not None and not item.image:  # taken over from a killed process
                item.image = image_of_delivery(delivery)
            size = len(item.image)
            head = frames.image_head(sequence, previous, item.sent_ns, item.flags, size)
            self._send_images([head, item.image])

    def _interrupted(self) -> bool:
        return self._resume is not None or self._ended or not self._open


def _last_read(receiver: Receiver, board: Board) -> int:
    """Return the last message that earlier link processes have read from the queue.

    A killed one may have read a record without settling it: the message is lost, and the peer
    counts it. Protected messages that wait may be older and are still to be sent.
    """
    words = board.edge_words(receiver.spec.area)
    settled = int(words[layout.C_SETTLED])
    if receiver.protected_wait():
        return settled
    return max(settled, int(words[layout.C_LAST_DATA]), int(words[layout.C_LAST_URGENT]))


def _is_small(delivery: Delivery) -> bool:
    """Return whether a message is sent as an image."""
    return delivery.kind is RecordKind.DATA and delivery.nbytes <= LARGEST_IMAGE
