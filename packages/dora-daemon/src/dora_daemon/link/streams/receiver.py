"""A stream that enters this machine: put in order, checked, and pushed into local queues.

What fits at once is pushed by whoever brings it, Zenoh's own thread. As soon as anything must
wait - a full backpressure queue, a large copy, memory - the stream's own thread takes over until it
has caught up. So no stream waits for another one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from hashlib import blake2b
from typing import Protocol

from dora_daemon.link.errors import LinkEnds
from dora_daemon.link.io.thread_guard import guarded
from dora_daemon.link.protocol.frames import Chunk, Data, News
from dora_daemon.link.protocol.hello import Entering, Leaving
from dora_daemon.link.protocol.windows import ReceiveOrder
from dora_daemon.link.streams.validation import is_plain, problem_with
from dora_node_api.transport import PoolExhausted, RecordKind
from dora_node_api.transport.producer.blocks import Hold
from dora_node_api.transport.producer.relay import Forwarder

CHECKED_AT_ONCE = 1024 * 1024
"""Bytes up to which a message is pushed where it arrives although checking it takes time."""
TOLD_AT_ONCE = 64 * 1024
"""Bytes from which on a message is acknowledged at once: its sender keeps memory for it."""
_AGAIN_SECONDS = 0.02
_NEWS = {
    RecordKind.CLOSED: "closed",
    RecordKind.NODE_RESTARTED: "restarted",
    RecordKind.NODE_FAILED: "failed",
}


class Surroundings(Protocol):
    """What a stream tells the link, from whatever thread."""

    def stored(self, stream: IncomingStream, *, at_once: bool) -> None:
        """More is in the local queues: to be acknowledged."""

    def news(self, stream: IncomingStream, news: str, error: str) -> None:
        """The source's life changed; the local queues have the record."""

    def note(self, sentence: str) -> None:
        """Something that a user should know."""

    def to_our_time(self, stream: IncomingStream, their_monotonic: int) -> int:
        """A time of the sender's CLOCK_MONOTONIC on ours."""


class Assembly:
    """A message that comes in several frames, copied into its block as they come."""

    __slots__ = ("arrived", "at_once", "copied", "data", "hold", "target", "waiting")

    def __init__(self, data: Data) -> None:
        self.data = data
        self.arrived = len(data.data)
        self.copied = 0
        self.hold: Hold | None = None
        self.target: memoryview | None = None
        self.at_once = False
        """Whether pieces are copied where they arrive; otherwise they wait for the thread."""
        self.waiting: deque[tuple[int, memoryview]] = deque(((0, data.data),))

    def copy(self, offset: int, piece: memoryview) -> None:
        """Put a piece into the block."""
        assert self.target is not None
        self.target[offset : offset + len(piece)] = piece
        self.copied += len(piece)

    @property
    def complete(self) -> bool:
        return self.arrived == self.data.parts.nbytes


class SourceEnded:
    """The source's part has ended for good, and its link may have gone without a word."""


Item = Data | News | Assembly | SourceEnded | str
"""What the stream's thread works on; a str is another life of the source's part."""


def life_number(machine: str, run_id: str) -> int:
    """A life as it is noted on the status board; never 0."""
    digest = blake2b(f"{machine}\0{run_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1


class IncomingStream:
    """Frames of one output of one machine, on their way into the local queues."""

    def __init__(
        self, machine: str, node: str, output: str, forwarder: Forwarder, around: Surroundings
    ) -> None:
        self.machine = machine
        self.node = node
        self.output = output
        self.route = f"{node}/{output}"
        self.wanted: frozenset[int] = frozenset()
        """Queues that must be there before anything is accepted."""
        self.life = ""
        self.number = 0
        """By which the peer's frames name this stream."""
        self.stored = 0
        self.messages = 0
        self.bytes = 0
        self.invalid = 0
        self.dropped = 0
        self.acknowledge_after = 1
        """Messages after which the sender should hear at once, not a moment later."""
        self.unacknowledged = 0
        self._forwarder = forwarder
        self._around = around
        self._order: ReceiveOrder[Item] = ReceiveOrder()
        self._assemblies: dict[int, Assembly] = {}
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._todo: deque[tuple[int, Item]] = deque()
        self._lives_ahead = 0
        """Lives in `_todo`: what comes before them has numbers that mean nothing any more."""
        self._thread: threading.Thread | None = None
        self._ended = False

    @property
    def lost(self) -> int:
        return self._order.lost + self.dropped

    @property
    def waiting(self) -> int:
        return len(self._todo) + len(self._order)

    @property
    def ready(self) -> bool:
        """Whether all its queues are there."""
        return self.wanted <= self._forwarder.queues(self.route)

    def entering(self) -> Entering:
        """What the greeting says of this stream."""
        with self._lock:
            return Entering(
                node=self.node, output=self.output, life=self.life,
                accepted=self._order.last, stored=self.stored, listening=bool(self.wanted),
            )  # fmt: skip

    # --- rounds and lives -------------------------------------------------------------------------

    def begin_round(self, run_id: str, leaving: Leaving) -> None:
        """The sender's greeting opens a round: what was on the way is gone."""
        with self._lock:
            self.number = leaving.number
            self.acknowledge_after = max(1, leaving.window // 4)
            self._assemblies.clear()
            known = self.life == run_id or self._learn(run_id)
            if known:
                self._order.begin_round(leaving.given_up)
            else:
                self._order.last = leaving.given_up
            if not self._todo:
                self.stored = max(self.stored, leaving.given_up)

    def _learn(self, run_id: str) -> bool:
        """Begin another life; whether some of its messages have been received before."""
        number = life_number(self.machine, run_id)
        changed = bool(self.life)
        self.life = run_id
        lost = self._order.lost
        self._order = ReceiveOrder()
        self._order.lost = lost
        self.stored = 0
        if changed or self._forwarder.life(self.route) not in (0, number):
            self._lives_ahead += 1
            self._push_later(0, run_id)
            return False
        self.stored = self._order.last = self._forwarder.resume(self.route, number)
        return self.stored > 0

    # --- frames -----------------------------------------------------------------------------------

    def data(self, data: Data) -> None:
        """The first frame of a message."""
        with self._lock:
            if data.sequence <= self._order.last:
                self._order.repeated += 1
                return
            if not data.whole:
                self._begin(data)
                return
            self._accept(data.sequence, data.previous, data)

    def chunk(self, chunk: Chunk) -> None:
        """More of a message; of one that is not known it is left aside."""
        with self._lock:
            assembly = self._assemblies.get(chunk.sequence)
            if assembly is None or chunk.offset != assembly.arrived:
                return
            if assembly.arrived + len(chunk.data) > assembly.data.parts.nbytes:
                return
            assembly.arrived += len(chunk.data)
            if assembly.at_once:
                assembly.copy(chunk.offset, chunk.data)
            else:
                assembly.waiting.append((chunk.offset, chunk.data))
            if assembly.complete:
                del self._assemblies[chunk.sequence]
                self._accept(chunk.sequence, assembly.data.previous, assembly)
            elif not assembly.at_once:
                self._work.notify()

    def _begin(self, data: Data) -> None:
        """The first frame of several: copy each where it arrives, if there is memory now."""
        assembly = self._assemblies[data.sequence] = Assembly(data)
        hold = self._forwarder.allocate_at_once(self.route, data.parts.total)
        if hold is None:
            self._push_later(0, assembly)
            return
        assembly.at_once = True
        assembly.waiting.clear()
        assembly.hold = hold
        assembly.target = self._forwarder.fill_head(hold, data.parts)
        assembly.copy(0, data.data)

    def tidings(self, news: News) -> None:
        """What ends or changes the stream."""
        with self._lock:
            self._accept(news.sequence, news.previous, news)

    def source_ended(self) -> None:
        """Close the input after all that waits."""
        with self._lock:
            self._push_later(0, SourceEnded())

    def _accept(self, sequence: int, previous: int, item: Item) -> None:
        for number, ready in self._order.accept(sequence, previous, item):
            try:
                done = not self._todo and self._push_at_once(number, ready)
            except OSError:
                done = False  # its thread meets it again, and then the link ends and starts anew
            if not done:
                self._push_later(number, ready)

    # --- pushing ----------------------------------------------------------------------------------

    def _push_at_once(self, sequence: int, item: Item) -> bool:
        """Push where the frame arrives, if nothing can make us wait."""
        if isinstance(item, Assembly):
            return self._push_assembly_at_once(sequence, item)
        if not isinstance(item, Data):
            return False
        problem = problem_with(item.parts, item.data)
        if problem is not None:
            self._refuse(sequence, problem)
        elif not self._forwarder.forward_at_once(
            self.route,
            item.parts,
            item.data,
            source=sequence,
            sent_ns=self._around.to_our_time(self, item.sent_ns),
            flags=item.flags,
        ):
            return False
        self._is_stored(sequence, item.parts.nbytes)
        return True

    def _push_assembly_at_once(self, sequence: int, assembly: Assembly) -> bool:
        parts = assembly.data.parts
        quick = parts.nbytes <= CHECKED_AT_ONCE or is_plain(parts)
        if not assembly.at_once or not quick or not self._forwarder.has_room(self.route):
            return False
        problem = problem_with(parts, assembly.target)
        if problem is not None:
            self._refuse(sequence, problem)
        else:
            assert assembly.hold is not None
            if not self._forwarder.forward_filled_at_once(
                self.route,
                assembly.hold,
                parts.total,
                source=sequence,
                sent_ns=self._around.to_our_time(self, assembly.data.sent_ns),
                flags=assembly.data.flags,
            ):
                return False
            assembly.target = None
        self._is_stored(sequence, parts.nbytes)
        return True

    def _push_later(self, sequence: int, item: Item) -> None:
        if self._ended:
            return
        self._todo.append((sequence, item))
        if self._thread is None:
            self._thread = threading.Thread(
                target=guarded(self._run, self._around.note), name=f"in {self.route}", daemon=True
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
            if done and sequence:
                size = 0
                if isinstance(item, Assembly | Data):
                    data = item.data if isinstance(item, Assembly) else item
                    size = data.parts.nbytes
                self._is_stored(sequence, size)
            elif not done:
                time.sleep(_AGAIN_SECONDS)

    def _work_on(self, sequence: int, item: Item) -> bool:
        """False when it is to be tried again."""
        try:
            match item:
                case str():
                    self._new_life(item)
                case SourceEnded():
                    if not self._forwarder.announce(self.route, RecordKind.CLOSED):
                        return False
                    self._around.news(self, "closed", "")
                case News():
                    return self._push_news(sequence, item)
                case Data():
                    self._push_data(sequence, item)
                case Assembly() if sequence == 0:
                    self._fill(item)
                case Assembly():
                    self._push_assembly(sequence, item)
        except PoolExhausted as error:
            if self._ended or self._forwarder.waits(self.route):
                return False
            if not sequence:
                return True
            self.dropped += 1
            self._around.note(f"a message of {self.route} was dropped: {error}")
            self._forwarder.skip(self.route, sequence)
        return True

    def _new_life(self, run_id: str) -> None:
        """The source's whole part was started anew."""
        while not self._ended and not self._forwarder.announce(
            self.route, RecordKind.NODE_RESTARTED
        ):
            time.sleep(_AGAIN_SECONDS)
        self._forwarder.resume(self.route, life_number(self.machine, run_id))
        with self._lock:
            self._lives_ahead -= 1
        self._around.news(self, "restarted", "")

    def _push_news(self, sequence: int, item: News) -> bool:
        if not self._forwarder.announce(self.route, item.kind, item.error, source=sequence):
            return False
        self._around.news(self, _NEWS[item.kind], item.error)
        return True

    def _push_data(self, sequence: int, data: Data) -> None:
        problem = problem_with(data.parts, data.data)
        if problem is not None:
            self._refuse(sequence, problem)
            return
        hold = self._forwarder.allocate(self.route, data.parts.total)
        target = self._forwarder.fill_head(hold, data.parts)
        if data.parts.nbytes:
            target[:] = data.data
        self._forward(sequence, data, hold)

    def _fill(self, assembly: Assembly) -> None:
        """Copy what has come; runs until the message is complete or given up."""
        parts = assembly.data.parts
        if assembly.hold is None:
            assembly.hold = self._forwarder.allocate(self.route, parts.total)
            assembly.target = self._forwarder.fill_head(assembly.hold, parts)
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

    def _push_assembly(self, sequence: int, assembly: Assembly) -> None:
        if assembly.hold is None or assembly.copied < assembly.data.parts.nbytes:
            self._fill(assembly)
        assert assembly.hold is not None
        problem = problem_with(assembly.data.parts, assembly.target)
        if problem is not None:
            self._refuse(sequence, problem)
            return
        assembly.target = None
        self._forward(sequence, assembly.data, assembly.hold)

    def _forward(self, sequence: int, data: Data, hold: Hold) -> None:
        self._forwarder.forward(
            self.route,
            hold,
            data.parts.total,
            source=sequence,
            sent_ns=self._around.to_our_time(self, data.sent_ns),
            flags=data.flags,
        )

    def _refuse(self, sequence: int, problem: str) -> None:
        self.invalid += 1
        self._forwarder.skip(self.route, sequence)
        self._around.note(
            f"{self.route} from {self.machine}: message {sequence} is not what Arrow expects and"
            f" was dropped: {problem}"
        )

    def _is_stored(self, sequence: int, nbytes: int) -> None:
        if not self._lives_ahead:
            self.stored = max(self.stored, sequence)
        self.messages += 1
        self.bytes += nbytes
        self.unacknowledged += 1
        at_once = nbytes > TOLD_AT_ONCE or self.unacknowledged >= self.acknowledge_after
        if at_once:
            self.unacknowledged = 0
        self._around.stored(self, at_once=at_once)

    def end(self) -> None:
        """Have the thread stop; what waits is dropped."""
        with self._lock:
            self._ended = True
            self._todo.clear()
            self._work.notify_all()

    @property
    def ended(self) -> bool:
        """Whether the thread is gone; a full local queue may hold it."""
        return self._ended and (self._thread is None or not self._thread.is_alive())

    def join(self, seconds: float) -> None:
        """Wait for the end of the thread, so long at most."""
        if self._thread is not None:
            self._thread.join(max(0.0, seconds))
