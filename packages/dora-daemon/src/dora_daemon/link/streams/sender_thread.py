"""The thread that runs outgoing streams to one peer.

Small messages of different streams that wait at the same time go in one frame. A stream that has
sent a large message gets a thread of its own, so that no other stream waits for its frames.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Final, Protocol

from dora_daemon.link.io.thread_guard import guarded
from dora_daemon.link.protocol.priority import Priority
from dora_node_api.transport.consumer.receiving import Receiver
from dora_node_api.transport.consumer.waiting import Waiter

BATCH: Final = 32 * 1024
"""Bytes of small messages after which a frame is sent."""


class FrameSink(Protocol):
    """Sends frames to a peer."""

    link_id: int

    @property
    def their_link(self) -> int:
        """Id of the peer's present link."""

    def send(self, priority: Priority, frame: bytes, *, more: bool = False) -> bool:
        """Return False without a session; a new round follows. ``more``: another one follows."""

    def room(self, most: int, stop: Callable[[], bool]) -> int:
        """Wait until a piece of a large message may be sent; return its size in bytes.

        ``most``: largest size of the piece; ``stop``: returns whether to stop waiting.
        """

    def send_image(
        self, stream: int, sequence: int, previous: int, sent_ns: int, flags: int, image: bytes
    ) -> bool:
        """Send one small message, as `send_images` with ``quick``."""

    def send_images(self, images: Sequence[bytes | memoryview], *, quick: bool) -> bool:
        """Send small messages: heads and images in turn, joined; as `send`.

        ``quick``: they may go over a low-latency connection. Set by one thread at a time.
        """


class Turn(Enum):
    """Condition for the next turn of a stream."""

    AGAIN = auto()
    """No event: the stream may have more to do."""
    MESSAGE = auto()
    WAKE = auto()
    """A call from another thread: the window is full, or the session is missing."""
    ENDED = auto()


class RunStream(Protocol):
    """Interface of a stream for its thread."""

    thread: SenderThread | None

    @property
    def receiver(self) -> Receiver: ...

    @property
    def sends_large(self) -> bool:
        """Whether it has sent a large message."""

    def work(self, outbox: Outbox) -> Turn:
        """Send what can be sent; other streams get their turn after a limit."""

    def send_only(self) -> bool:
        """Send the only message that waits, if it is small and may be sent at once.

        False, with nothing sent, otherwise; then call `work`.
        """

    def stop_sending(self) -> None:
        """Wait for the next round: the session is missing."""

    def finish(self) -> None:
        """Leave the queue permanently: the thread does not use the stream any more."""


class Outbox:
    """Small messages of any streams that go in one frame."""

    def __init__(self, sink: FrameSink) -> None:
        self._sink = sink
        self._images: list[bytes | memoryview] = []
        self._size = 0
        self._kept: list[object] = []
        self._streams: set[RunStream] = set()

    def add(
        self,
        stream: RunStream,
        head: bytes,
        image: Sequence[bytes | memoryview],
        size: int,
        kept: object,
    ) -> None:
        """Add a message, whose image of ``size`` bytes is valid while ``kept`` is.

        Send the frame once it is `full`.
        """
        self._images += (head, *image)
        self._size += size
        self._kept.append(kept)
        self._streams.add(stream)

    @property
    def full(self) -> bool:
        return self._size >= BATCH

    def flush(self) -> None:
        """Send the frame, if there is anything to send."""
        if not self._images:
            return
        images, self._images, self._size = self._images, [], 0
        quick = not any(stream.sends_large for stream in self._streams)
        if not self._sink.send_images(images, quick=quick):
            for stream in self._streams:
                stream.stop_sending()
        self._streams.clear()
        self._kept.clear()


class SenderThread:
    """Runs streams; ends with the last of them and starts again with the next one."""

    def __init__(self, sink: FrameSink, name: str, note: Callable[[str], None]) -> None:
        self.sink = sink
        self._name = name
        self._note = note
        self._lock = threading.Lock()
        self._added: list[RunStream] = []
        self._streams: dict[RunStream, None] = {}
        self._wake_write = -1
        """Write end of the pipe that wakes the thread; -1 before it exists."""

    def add(self, stream: RunStream) -> None:
        """Run a stream from now on."""
        with self._lock:
            stream.thread = self
            self._added.append(stream)
            if self._wake_write < 0:
                wake_read, self._wake_write = os.pipe()
                for end in (wake_read, self._wake_write):
                    os.set_blocking(end, False)
                run = guarded(lambda: self._run(wake_read), self._note)
                threading.Thread(target=run, name=self._name, daemon=True).start()
        self.wake()

    def wake(self) -> None:
        """Give every stream a turn."""
        with self._lock, contextlib.suppress(BlockingIOError):
            if self._wake_write >= 0:
                os.write(self._wake_write, b"w")

    def _run(self, wake_read: int) -> None:
        waiter = Waiter(polls=False)  # polling keeps the GIL from the thread that receives
        waiter.add_fd(wake_read)
        outbox = Outbox(self.sink)
        watched: dict[Receiver | int, RunStream] = {}
        again: list[RunStream] = []
        while True:
            if again:
                ready = waiter.wait(0)
            else:
                ready = waiter.sleep()
                if len(ready) == 1 and (only := watched.get(ready[0])) and only.send_only():
                    continue
            turns = dict.fromkeys(again)
            if wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake_read, 4096)
                turns |= self._take_added()
            turns |= {watched[found]: None for found in ready if isinstance(found, Receiver)}
            again = [s for s in turns if self._turn(s, outbox, waiter, watched)]
            outbox.flush()
            if not self._streams and self._stops():
                break
        waiter.close()
        os.close(wake_read)

    def _take_added(self) -> dict[RunStream, None]:
        with self._lock:
            self._streams |= dict.fromkeys(self._added)
            self._added.clear()
        return self._streams

    def _stops(self) -> bool:
        """Whether no stream was added since."""
        with self._lock:
            if self._added:
                return False
            os.close(self._wake_write)
            self._wake_write = -1
            return True

    def _turn(
        self,
        stream: RunStream,
        outbox: Outbox,
        waiter: Waiter,
        watched: dict[Receiver | int, RunStream],
    ) -> bool:
        """Give a stream a turn; return whether it needs another one at once."""
        turn = stream.work(outbox)
        if outbox.full:
            outbox.flush()
        moves = stream.sends_large and len(self._streams) > 1 and turn is not Turn.ENDED
        if turn is Turn.MESSAGE and not moves:
            if stream.receiver not in watched:
                waiter.add(stream.receiver)
                watched[stream.receiver] = stream
        elif turn is not Turn.AGAIN or moves:
            waiter.remove(stream.receiver)
            watched.pop(stream.receiver, None)
        if moves or turn is Turn.ENDED:
            outbox.flush()
            del self._streams[stream]
            if moves:
                SenderThread(self.sink, f"{self._name}, large", self._note).add(stream)
            else:
                stream.finish()
        return turn is Turn.AGAIN and not moves
