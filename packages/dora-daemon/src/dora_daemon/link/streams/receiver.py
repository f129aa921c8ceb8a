"""A stream that enters this machine: ordered, validated and pushed into local queues.

The receiving thread, one of Zenoh's, pushes what fits at once. As soon as anything must wait - a
full backpressure queue, a large copy, memory - the stream's own thread takes over until it has
caught up. So no stream waits for another one.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Final, Protocol

from dora_daemon.link.errors import LinkEnds
from dora_daemon.link.io.thread_guard import guarded
from dora_daemon.link.protocol.clocks import ClockOffset
from dora_daemon.link.protocol.frames import Data, Image, LifecycleEvent
from dora_daemon.link.protocol.hello import EnteringStream, LeavingStream
from dora_daemon.link.protocol.messages import ToRunner
from dora_daemon.link.protocol.windows import ReceiveOrder
from dora_daemon.link.streams.assembly import Assembly
from dora_daemon.link.streams.delivery import Item, LocalDelivery, NewRun, SourceEnded
from dora_daemon.link.streams.images import ImageMessage, ImageReader
from dora_node_api.transport.producer.forwarding import Forwarder
from dora_node_api.transport.shared.errors import PoolExhausted
from dora_node_api.transport.shared.layout import RecordKind

_RETRY_SECONDS = 0.02
"""Seconds between attempts to write to local queues."""
_MESSAGES: Final = (ImageMessage, Assembly)
ACK_AT_ONCE_BYTES: Final = 64 * 1024
"""A larger message is acknowledged at once: its sender keeps memory for it."""
MAX_BYTES: Final = 1024 * 1024
"""Bytes of smaller messages after which they are acknowledged at once."""


class AckPolicy:
    """Counts the stored messages of one stream since its last acknowledgement at once."""

    def __init__(self) -> None:
        self._max_messages = 1
        self._messages = 0
        self._bytes = 0
        self._waiting = False
        self._at_once = False

    def begin_round(self, window: int) -> None:
        """Do not let acknowledgements wait for more than a quarter of the sender's window."""
        self._max_messages = max(1, window // 4)

    def stored(self, nbytes: int) -> None:
        """Count a stored message."""
        self._messages += 1
        self._bytes += nbytes
        self._waiting = True
        if (
            nbytes > ACK_AT_ONCE_BYTES
            or self._messages >= self._max_messages
            or self._bytes >= MAX_BYTES
        ):
            self._at_once = True
            self._messages = self._bytes = 0

    def take(self) -> bool | None:
        """Return whether to acknowledge at once; None if nothing was stored since the last call."""
        if not self._waiting:
            return None
        at_once, self._waiting, self._at_once = self._at_once, False, False
        return at_once


class AckSink(Protocol):
    """Sends acknowledgements to a peer."""

    def stored(self, stream: StreamReceiver, *, at_once: bool) -> None:
        """Acknowledge the messages that are stored in the local queues. Any thread."""


class StreamPeer(Protocol):
    """Interface of the sending peer for a stream."""

    clock: ClockOffset

    @property
    def sender(self) -> AckSink: ...


def run_hash(machine: str, run_id: str) -> int:
    """Return the number of a run on the status board; never 0."""
    digest = blake2b(f"{machine}\0{run_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1


class StreamReceiver:
    """Receiver of one output of one machine."""

    def __init__(
        self,
        machine: str,
        node: str,
        output: str,
        peer: StreamPeer,
        forwarder: Forwarder,
        *,
        send: Callable[[ToRunner], None],
        note: Callable[[str], None],
    ) -> None:
        """``send``, ``note``: report to the runner and to its log."""
        self.machine = machine
        self.node = node
        self.output = output
        self.route = f"{node}/{output}"
        self.wanted: frozenset[int] = frozenset()
        """Queues that must have arrived before the stream begins."""
        self.run_id = ""
        self.number = 0
        """Number of the stream in the peer's frames."""
        self.stored = 0
        self.messages = 0
        self.bytes = 0
        self.dropped = 0
        self._acks = AckPolicy()
        self._forwarder = forwarder
        self._note = note
        self._order: ReceiveOrder[Item] = ReceiveOrder()
        self._images = ImageReader()
        self._assemblies: dict[int, Assembly] = {}
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._todo: deque[tuple[int, Item]] = deque()
        self._runs_ahead = 0
        """New runs in `_todo`: sequence numbers before them belong to an earlier run."""
        self._thread: threading.Thread | None = None
        self._ended = False
        self._delivery = LocalDelivery(
            machine, node, output, forwarder, peer.clock, send=send, note=note
        )
        self.use_peer(peer)

    def use_peer(self, peer: StreamPeer) -> None:
        """Acknowledge to this peer from now on."""
        self._ack_sink = peer.sender
        self._clock = self._delivery.clock = peer.clock

    @property
    def invalid(self) -> int:
        """Messages that were not valid Arrow data."""
        return self._delivery.invalid

    @property
    def lost(self) -> int:
        return self._order.lost + self.dropped + self._delivery.undecoded

    @property
    def waiting(self) -> int:
        return len(self._todo) + len(self._order)

    @property
    def ready(self) -> bool:
        """Whether all its queues have arrived."""
        return self.wanted <= self._forwarder.queues(self.route)

    def entering(self) -> EnteringStream:
        """Return this stream's entry in our hello."""
        with self._lock:
            return EnteringStream(
                node=self.node, output=self.output, run_id=self.run_id,
                accepted=self._order.last, stored=self.stored, listening=bool(self.wanted),
            )  # fmt: skip

    # --- rounds and runs --------------------------------------------------------------------------

    def begin_round(self, run_id: str, leaving: LeavingStream) -> None:
        """Begin a round with the sender's entry: frames in flight before it are lost."""
        with self._lock:
            self.number = leaving.number
            self._acks.begin_round(leaving.window)
            self._assemblies.clear()
            known = self.run_id == run_id or self._begin_run(run_id)
            if known:
                self._order.begin_round(leaving.given_up)
            else:
                self._order.last = leaving.given_up
            if not self._todo:
                self.stored = max(self.stored, leaving.given_up)

    def _begin_run(self, run_id: str) -> bool:
        """Begin another run; return whether messages of it were received before."""
        number = run_hash(self.machine, run_id)
        changed = bool(self.run_id)
        self.run_id = run_id
        lost = self._order.lost
        self._order = ReceiveOrder()
        self._order.lost = lost
        self.stored = 0
        if changed or self._forwarder.run_hash(self.route) not in (0, number):
            self._runs_ahead += 1
            self._push_later(0, NewRun(run_id))
            return False
        self.stored = self._order.last = self._forwarder.resume(self.route, number)
        return self.stored > 0

    # --- frames -----------------------------------------------------------------------------------

    def images(self, frame: bytes, images: Iterable[Image], now: int) -> None:
        """Handle messages of an IMAGE or IMAGES frame at ``now``. Raises WireError."""
        with self._lock:
            try:
                for sequence, previous, sent_ns, flags, start, end in images:
                    if sequence <= self._order.last:
                        self._order.repeated += 1
                        continue
                    message = self._images.read(frame, start, end, sent_ns, flags)
                    if not self._push_next(sequence, previous, message, now):
                        self._accept(sequence, previous, message)
            finally:
                self._acknowledge()

    def _push_next(self, sequence: int, previous: int, message: ImageMessage, now: int) -> bool:
        """Push the next message at once, the usual case, in few calls; False with nothing done."""
        order = self._order
        if previous > order.last or order.early or self._todo or message.problem:
            return False
        sent_ns = self._clock.to_ours(message.sent_ns, now)
        try:
            if not self._forwarder.forward(
                self.route, message, message.total, sequence, sent_ns, message.flags
            ):
                return False
        except OSError:
            return False  # repeated by `_accept`, which passes it to the stream's thread
        order.last = sequence
        self._count(sequence, message)
        return True

    def data(self, data: Data) -> None:
        """Handle the first frame of a large message."""
        with self._lock:
            if data.sequence <= self._order.last:
                self._order.repeated += 1
                return
            self._begin(data)
            self._acknowledge()

    def chunk(self, sequence: int, offset: int, piece: memoryview) -> None:
        """Handle more of a message; ignored if its first frame has not arrived."""
        with self._lock:
            assembly = self._assemblies.get(sequence)
            if assembly is None or offset != assembly.arrived:
                return
            end, size = offset + len(piece), assembly.size
            if end > size:
                return
            assembly.arrived = end
            if assembly.at_once and assembly.target is not None:
                assembly.target[offset:end] = piece  # as `Assembly.copy`, without a call
                assembly.copied = end
            else:
                assembly.waiting.append((offset, piece))
            if end == size:
                del self._assemblies[sequence]
                self._accept(sequence, assembly.data.previous, assembly)
                self._acknowledge()
            elif not assembly.at_once:
                self._work.notify()

    def _begin(self, data: Data) -> None:
        """Allocate a block for a large message; its thread does without free memory."""
        assembly = Assembly(data)
        if data.coded:
            assembly.collect()
            if data.whole:
                self._accept(data.sequence, data.previous, assembly)
            else:
                self._assemblies[data.sequence] = assembly
            return
        hold = self._forwarder.allocate_at_once(self.route, data.parts.total)
        if hold is not None:
            assembly.at_once = True
            assembly.waiting.clear()
            assembly.fill(hold, self._forwarder.fill_head(hold, data.parts))
            assembly.copy(0, data.data)
        if data.whole:
            self._accept(data.sequence, data.previous, assembly)
            return
        self._assemblies[data.sequence] = assembly
        if hold is None:
            self._push_later(0, assembly)

    def lifecycle(self, event: LifecycleEvent) -> None:
        """Handle a lifecycle event of the source."""
        with self._lock:
            self._accept(event.sequence, event.previous, event)

    def source_ended(self) -> None:
        """Close the input after the messages that wait."""
        with self._lock:
            self._push_later(0, SourceEnded())

    def _accept(self, sequence: int, previous: int, item: Item) -> None:
        for number, ready in self._order.accept(sequence, previous, item):
            done = False
            if not self._todo and isinstance(ready, _MESSAGES):
                # OSError: the stream's thread repeats it, and then the link fails and restarts
                with contextlib.suppress(OSError):
                    done = self._delivery.push(number, ready, wait=False)
            if done:
                self._count(number, ready)
            else:
                self._push_later(number, ready)

    # --- pushing ----------------------------------------------------------------------------------

    def _push_later(self, sequence: int, item: Item) -> None:
        if self._ended:
            return
        self._todo.append((sequence, item))
        if self._thread is None:
            self._thread = threading.Thread(
                target=guarded(self._run, self._note), name=f"in {self.route}", daemon=True
            )
            self._thread.start()
        self._work.notify()

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._todo and not self._ended:
                    self._work.wait()
                if self._ended:
                    return
                sequence, item = self._todo[0]
            try:
                done = self._work_on(sequence, item)
            except LinkEnds:
                return
            with self._lock:
                if self._ended:
                    return
                if done:
                    self._todo.popleft()
                    if sequence:
                        self._count(sequence, item)
                        self._acknowledge()
            if not done:
                time.sleep(_RETRY_SECONDS)

    def _work_on(self, sequence: int, item: Item) -> bool:
        """Return False if it must be tried again."""
        try:
            match item:
                case NewRun():
                    self._new_run(item.run_id)
                case SourceEnded():
                    return self._delivery.close()
                case LifecycleEvent():
                    return self._delivery.push_event(sequence, item)
                case ImageMessage():
                    self._delivery.push(sequence, item, wait=True)
                case Assembly() if item.data.coded:
                    self._delivery.push_coded(sequence, item)
                case Assembly():
                    if item.hold is None or item.copied < item.size:
                        self._fill(item)
                    if sequence:
                        self._delivery.push(sequence, item, wait=True)
        except PoolExhausted as error:
            if self._ended or self._forwarder.waits(self.route):
                return False
            if not sequence:
                return True
            self.dropped += 1
            self._note(f"dropped a message of {self.route}: {error}")
            self._forwarder.skip(self.route, sequence)
        return True

    def _new_run(self, run_id: str) -> None:
        """Report that the source's part was restarted."""
        while not self._ended and not self._forwarder.announce(
            self.route, RecordKind.NODE_RESTARTED
        ):
            time.sleep(_RETRY_SECONDS)
        self._forwarder.resume(self.route, run_hash(self.machine, run_id))
        with self._lock:
            self._runs_ahead -= 1
        self._delivery.report("restarted")

    def _fill(self, assembly: Assembly) -> None:
        """Copy pieces until the message is complete or given up."""
        parts = assembly.data.parts
        if assembly.hold is None:
            hold = self._forwarder.allocate(self.route, parts.total)
            assembly.fill(hold, self._forwarder.fill_head(hold, parts))
        sequence = assembly.data.sequence
        while assembly.copied < parts.nbytes:
            with self._lock:
                while not assembly.waiting:
                    given_up = self._assemblies.get(sequence) is not assembly
                    if self._ended or (given_up and not assembly.complete):
                        return
                    self._work.wait(1.0)
                offset, piece = assembly.waiting.popleft()
            assembly.copy(offset, piece)

    def _count(self, sequence: int, item: Item) -> None:
        """Count a stored message; `_acknowledge` follows."""
        nbytes = item.size if isinstance(item, _MESSAGES) else 0
        if not self._runs_ahead and sequence > self.stored:
            self.stored = sequence
        self.messages += 1
        self.bytes += nbytes
        self._acks.stored(item.kept if isinstance(item, Assembly) else nbytes)

    def _acknowledge(self) -> None:
        at_once = self._acks.take()
        if at_once is not None:
            self._ack_sink.stored(self, at_once=at_once)

    def end(self) -> None:
        """Stop the thread; messages that wait are dropped."""
        with self._lock:
            self._ended = True
            self._todo.clear()
            self._work.notify_all()

    @property
    def ended(self) -> bool:
        """Whether the thread has ended; a full local queue may delay it."""
        return self._ended and (self._thread is None or not self._thread.is_alive())

    def join(self, seconds: float) -> None:
        """Wait at most ``seconds`` for the end of the thread."""
        if self._thread is not None:
            self._thread.join(max(0.0, seconds))
