"""A stream that leaves this machine: its queue is read and sent as far as the window allows."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable
from typing import Protocol

from dora_daemon.link.io.thread_guard import guarded
from dora_daemon.link.protocol import frames as wire
from dora_daemon.link.protocol.hello import Entering, Leaving
from dora_daemon.link.protocol.priority import SMALL, Lane, lane_for
from dora_daemon.link.protocol.windows import SendWindow
from dora_node_api.transport import Board, BrokenRecord, Delivery, Receiver, RecordKind, Waiter
from dora_node_api.transport.consumer.journal import HoldingReceiver
from dora_node_api.transport.shared import layout

CHUNK = 512 * 1024
"""Bytes of a data area that go into one frame: several are on their way at a time."""
TOGETHER = 32 * 1024
"""Bytes of small messages that wait behind each other and go in one sample of Zenoh."""
LEAST_WINDOW = 32
"""Messages that may be on the way whatever the queue's bound is."""


class Road(Protocol):
    """How a stream reaches its peer."""

    link: int

    @property
    def their_link(self) -> int:
        """Number of the peer's present link."""

    def send(self, lane: Lane, frame: bytes) -> bool:
        """False when there is no session; a new round follows."""


class Unacknowledged:
    """A message to send again if need be: its frame when it is small, else where it lies.

    Of a backpressure stream also small ones are kept where they lie: the next link process, if this
    one is killed, finds them there.
    """

    __slots__ = ("delivery", "flags", "frame")

    def __init__(self, frame: bytes, delivery: Delivery | None, flags: int) -> None:
        self.frame = frame
        self.delivery = delivery
        self.flags = flags


class OutgoingStream:
    """Reads one queue, on a thread of its own."""

    def __init__(
        self,
        number: int,
        node: str,
        output: str,
        road: Road,
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
        self._road = road
        self._receiver = receiver
        self._note = note
        self._holding = receiver if isinstance(receiver, HoldingReceiver) else None
        settled = _gone_with_others(receiver, board)
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

    # --- said by others ---------------------------------------------------------------------------

    def leaving(self) -> Leaving:
        """What the greeting says of this stream."""
        with self._lock:
            return Leaving(
                window=self.window.messages, number=self.number, node=self.node, output=self.output,
                given_up=self.window.given_up,
            )  # fmt: skip

    def go_on(self, entering: Entering) -> None:
        """A round began: send again what the other side does not have, then go on."""
        with self._lock:
            self._resume = entering
            self._open = True
            self._discard = not entering.listening
        self._wake()

    def pause(self) -> None:
        """No session, or the other side does not expect this stream (yet)."""
        with self._lock:
            self._open = False
            self._resume = None

    def discard(self) -> None:
        """Nobody is there any more to read this: let the producer go on."""
        with self._lock:
            self._open = True
            self._discard = True
            self._resume = None
            self.lost += self._give_up()
        self._wake()

    def acknowledged(self, sequence: int) -> None:
        """All local queues of the other side have everything up to this number."""
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
        """Messages that wait in the queue or are not acknowledged."""
        return self._receiver.pending() + len(self.window) + self._taking_over

    @property
    def waiting(self) -> int:
        return len(self.window)

    def end(self, *, close: bool, forget: bool = True) -> None:
        """Have the thread stop reading; what is not acknowledged is forgotten.

        ``close`` the receiver, too. ``forget`` False: the next link process is to send again what
        this one could not. Until `ended` the receiver belongs to the thread.
        """
        self._close_receiver = close
        self._forget = forget
        self._ended = True
        self._wake()

    @property
    def ended(self) -> bool:
        """Whether the thread is gone; a put may hold it for seconds."""
        return self._ended and not self._thread.is_alive()

    def join(self, seconds: float) -> None:
        """Wait for the end of the thread, so long at most."""
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
                self._send_again()
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
        """What an earlier link process had taken and was killed with is on its way again."""
        taken = receiver.take_over()
        with self._lock:
            for delivery, flags in taken:
                item = Unacknowledged(b"", delivery, flags)
                self.window.add(delivery.sequence, delivery.nbytes, item)
            self._taking_over = False
            if self._discard:
                self.lost += self._give_up()

    def _receive(self) -> Delivery | None:
        while True:
            try:
                return self._receiver.receive()
            except BrokenRecord as error:
                self._note(f"{self.node}/{self.output}: {error}")

    def _take(self) -> bool:
        """Send the next message, and small ones that wait behind it together with it.

        False when nothing waits.
        """
        delivery = self._receive()
        if delivery is None:
            return False
        together: list[bytes] = []
        size = 0
        while delivery is not None:
            self.messages += 1
            self.bytes += delivery.nbytes
            if self._discard or _is_large(delivery):
                self._send_together(together)
                self._take_alone(delivery)
                return True
            frame = self._keep_small(delivery)
            together.append(frame)
            size += len(frame)
            if size >= TOGETHER or self._resume is not None or not self.window.open:
                break
            delivery = self._receive()
        # It keeps memory of its producer, and what is acknowledged must be let go of before it is
        # crossed out in the journal.
        del delivery
        self._send_together(together)
        return True

    def _send_together(self, frames: list[bytes]) -> None:
        if len(frames) == 1:
            self._send(Lane.SMALL, frames[0])
        elif frames:
            head = wire.head(wire.FrameKind.TOGETHER, self._road.link, self._road.their_link)
            self._send(Lane.SMALL, head + wire.together_body(frames))

    def _take_alone(self, delivery: Delivery) -> None:
        if self._discard:
            with self._lock:
                self.window.add(delivery.sequence, 0, Unacknowledged(b"", None, 0))
                del delivery
                self._give_up()
            return
        flags = self._receiver.flags_of(delivery)
        item = Unacknowledged(b"", delivery, flags)
        with self._lock:
            previous = self.window.last
            self.window.add(delivery.sequence, delivery.nbytes, item)
        self._send_large(delivery, previous, flags)

    def _keep_small(self, delivery: Delivery) -> bytes:
        """The frame of a small message, which from now on may have to be sent again."""
        flags = self._receiver.flags_of(delivery)
        frame = self._small_frame(delivery, self.window.last, flags)
        item = Unacknowledged(frame, delivery if self._holding is not None else None, flags)
        with self._lock:
            self.window.add(delivery.sequence, len(frame), item)
        return frame

    def _small_frame(self, delivery: Delivery, previous: int, flags: int) -> bytes:
        road = self._road
        if delivery.kind is not RecordKind.DATA:
            head = wire.head(
                wire.FrameKind.NEWS, road.link, road.their_link, stream=self.number, flags=0
            )
            return head + wire.news_body(delivery.sequence, previous, delivery.kind, delivery.error)
        head = wire.head(
            wire.FrameKind.DATA, road.link, road.their_link, stream=self.number, flags=flags
        )
        parts, data = delivery.take_apart()
        begin = wire.data_head(head, delivery.sequence, previous, delivery.sent_ns, parts)
        return b"".join((begin, data))

    def _send_large(self, delivery: Delivery, previous: int, flags: int) -> None:
        road = self._road
        receiver = road.their_link
        parts, data = delivery.take_apart()
        lane = lane_for(parts.nbytes)
        head = wire.head(wire.FrameKind.DATA, road.link, receiver, stream=self.number, flags=flags)
        begin = wire.data_head(head, delivery.sequence, previous, delivery.sent_ns, parts)
        if not self._send(lane, b"".join((begin, data[:CHUNK]))):
            return
        head = wire.head(wire.FrameKind.CHUNK, road.link, receiver, stream=self.number)
        for at in range(CHUNK, parts.nbytes, CHUNK):
            # A new round sends the whole message again.
            if self._resume is not None or self._ended:
                return
            begin = wire.chunk_head(head, delivery.sequence, at)
            if not self._send(lane, b"".join((begin, data[at : at + CHUNK]))):
                return

    def _send(self, lane: Lane, frame: bytes) -> bool:
        if self._road.send(lane, frame):
            return True
        with self._lock:
            if self._resume is None and not self._discard:
                self._open = False
        return False

    def _send_again(self) -> None:
        with self._lock:
            entering, self._resume = self._resume, None
            if entering is None:
                return
            self._acknowledge(entering.stored)
            again = list(self.window.after(entering.accepted))
            if not len(self.window):
                # What was given up since the other side heard of it comes before nothing.
                self.window.last = min(self.window.last, entering.accepted)
        for _, previous, item in again:
            if self._stopped_again():
                return
            self.resent += 1
            if item.frame:
                self._send(Lane.SMALL, wire.readdress(item.frame, self._road.their_link))
                continue
            assert item.delivery is not None
            if _is_large(item.delivery):
                self._send_large(item.delivery, previous, item.flags)
            else:
                item.frame = self._small_frame(item.delivery, previous, item.flags)
                self._send(Lane.SMALL, item.frame)

    def _stopped_again(self) -> bool:
        return self._resume is not None or self._ended or not self._open


def _gone_with_others(receiver: Receiver, board: Board) -> int:
    """The last message that earlier link processes have taken from the queue.

    A killed one may have read a record that it did not come to settle. It is lost, and the other
    side is to count it. While protected ones wait, they may be older than that and are yet to come.
    """
    words = board.edge_words(receiver.spec.area)
    settled = int(words[layout.C_SETTLED])
    if receiver.protected_wait():
        return settled
    return max(settled, int(words[layout.C_LAST_DATA]), int(words[layout.C_LAST_URGENT]))


def _is_large(delivery: Delivery) -> bool:
    """Whether it goes in several frames, and is not kept as one."""
    return delivery.kind is RecordKind.DATA and delivery.nbytes > SMALL
