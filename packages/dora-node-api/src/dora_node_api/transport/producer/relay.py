"""A sender that passes on what a source on another machine sent: in its order, each message once.

Beside sending, it is the single writer of what ends or changes the input (as `QueueKeeper` is for
local sources), and it notes on the status board which of the source's messages each queue has. So
the process that takes over from a killed one knows where to go on.
"""

from __future__ import annotations

import os
import time

from dora_node_api.transport.producer.blocks import Hold
from dora_node_api.transport.producer.pool import Block
from dora_node_api.transport.producer.route import Route
from dora_node_api.transport.producer.sending import Sender
from dora_node_api.transport.shared import layout
from dora_node_api.transport.shared.layout import RecordKind
from dora_node_api.transport.shared.message_parts import Parts
from dora_node_api.transport.shared.queue import bytes_waiting

_LOOKS = 50
_monotonic_ns = time.monotonic_ns


class Forwarder(Sender):
    """Sends messages of remote sources. One thread at a time for each output."""

    def queues(self, output: str) -> set[int]:
        """Numbers of the queues that ``output`` goes to."""
        known = self._outputs.get(output)
        return set() if known is None else {route.spec.queue for route in known.routes}

    def resume(self, output: str, life: int) -> int:
        """The last message of this ``life`` of the source that every queue has; 0 for none.

        Call it once before the output's first message and again when the source's life changes.
        """
        routes = self._routes(output)
        if not routes:
            return 0
        return min(_last_source(route, life) for route in routes)

    def life(self, output: str) -> int:
        """The life of the source that its queues were written for last; 0 for none."""
        return max((int(r.words[layout.P_SOURCE_LIFE]) for r in self._routes(output)), default=0)

    def waits(self, output: str) -> bool:
        """Whether any of its queues is a backpressure queue."""
        known = self._outputs.get(output)
        return known is not None and known.backpressure

    def has_room(self, output: str) -> bool:
        """Whether a message would not have to wait for a backpressure queue."""
        known = self._outputs.get(output)
        if known is None or not known.backpressure:
            return True
        for route in known.routes:
            own = route.words
            if (
                route.backpressure
                and own[layout.P_SENT] - own[layout.C_RECEIVED] - own[layout.P_EVICTED]
                >= route.bound
                and bytes_waiting(route.ends.data_read) >= route.bound_bytes
            ):
                return False
        return True

    def allocate(self, output: str, total: int) -> Hold:
        """A block of ``total`` bytes to fill. Raises PoolExhausted and what waiting raises."""
        hold = self._allocate(total, self._outputs.get(output))
        assert hold.block is not None
        return hold

    def allocate_at_once(self, output: str, total: int) -> Hold | None:
        """As `allocate`, but None where it would have to wait or to give up older messages."""
        hold = Hold(self._returned)
        self._check()
        with self._lock:
            self._enter()
            for route in self._routes(output):
                if route.order:
                    route.collect(self.pool)
            try:
                block = self.pool.take(total)
            except MemoryError:
                block = None
            if block is not None:
                hold.block = block
                block.pinned = True
            self._inside = False
        return hold if block is not None else None

    def fill_head(self, hold: Hold, parts: Parts) -> memoryview:
        """Write all but the data area of a block; returns the data area, for the caller to fill."""
        assert hold.block is not None
        return _fill(hold.block, parts)

    def forward_at_once(
        self,
        output: str,
        parts: Parts,
        data: memoryview,
        *,
        source: int,
        sent_ns: int,
        flags: int,
    ) -> bool:
        """Put a small message into every queue, if neither a queue nor memory makes it wait.

        False when something would: then call `forward`, which leaves out those that have it.
        """
        known = self._outputs.get(output)
        if known is None or not known.routes:
            return True
        if known.backpressure and not self.has_room(output):
            return False
        self._check()
        with self._lock:
            self._enter()
            for route in known.routes:
                if route.order:
                    route.collect(self.pool)
            try:
                block = self.pool.take(parts.total)
            except MemoryError:
                block = None
            done = block is not None
            if block is not None:
                _fill(block, parts)[:] = data
                for route in known.routes:
                    own = route.words
                    if own[layout.P_SOURCE] >= source:
                        continue
                    own[layout.P_SOURCE_NEXT] = source
                    if self._push(route, block, parts.total, sent_ns, flags):
                        _note(own, source)
                    else:
                        done = False  # a pipe that is smaller than its bound
                    if route.drop_news:
                        self._drops.append(route)
                if not block.refs:
                    self.pool.give(block)
                if _monotonic_ns() > self._trim_at:
                    self._trim(_monotonic_ns())
            self._inside = False
        if self._drops:
            self._report_drops()
        return done

    def forward(
        self, output: str, hold: Hold, total: int, *, source: int, sent_ns: int, flags: int
    ) -> int:
        """Put a filled block into every queue that has not had message ``source`` yet.

        Waits for backpressure queues, the others are served first. ``sent_ns`` is this machine's
        CLOCK_MONOTONIC of the send. Returns how many queues took it.
        """
        block = hold.block
        assert block is not None
        taken = 0
        for route in self._routes(output):
            if route.words[layout.P_SOURCE] >= source:
                continue
            route.words[layout.P_SOURCE_NEXT] = source
            if self._put(route, block, total, sent_ns, flags):
                taken += 1
            _note(route.words, source)
        self._finish(hold)
        if self._drops:
            self._report_drops()
        return taken

    def forward_filled_at_once(
        self, output: str, hold: Hold, total: int, *, source: int, sent_ns: int, flags: int
    ) -> bool:
        """As `forward`, but never waits: False when a queue has no room, or its pipe, which may be
        smaller than its bound. Then call `forward`, which leaves out those that have it.
        """
        block = hold.block
        assert block is not None
        if not self.has_room(output):
            return False
        done = True
        self._check()
        with self._lock:
            self._enter()
            for route in self._routes(output):
                own = route.words
                if own[layout.P_SOURCE] >= source:
                    continue
                own[layout.P_SOURCE_NEXT] = source
                if route.removed or self._push(route, block, total, sent_ns, flags):
                    _note(own, source)
                else:
                    done = False
                if route.drop_news:
                    self._drops.append(route)
            self._inside = False
        if done:
            self._finish(hold)
        if self._drops:
            self._report_drops()
        return done

    def _put(self, route: Route, block: Block, total: int, sent_ns: int, flags: int) -> bool:
        if route.backpressure:
            return self._push_or_wait(route, block, total, flags)
        self._check()
        with self._lock:
            self._enter()
            done = not route.removed and self._push(route, block, total, sent_ns, flags)
            if route.drop_news:
                self._drops.append(route)
            self._inside = False
        return done

    def announce(self, output: str, kind: RecordKind, error: str = "", *, source: int = 0) -> bool:
        """Write what ends or changes the input into every queue of ``output``.

        ``source`` is the news' place among the source's messages (0: it has none). False when a
        queue had no room for it: call again later.
        """
        done = True
        for route in self._routes(output):
            own = route.words
            if source and own[layout.P_SOURCE] >= source:
                continue
            own[layout.P_SOURCE_NEXT] = source
            with self._lock:
                self._enter()
                written = route.removed or _write_news(self, route, kind, error)
                self._inside = False
            if not written:
                done = False
            elif source:
                _note(own, source)
        return done

    def skip(self, output: str, source: int) -> None:
        """Note that message ``source`` will not come, or was of no use."""
        for route in self._routes(output):
            _note(route.words, source)

    def _routes(self, output: str) -> tuple[Route, ...]:
        known = self._outputs.get(output)
        return () if known is None else known.routes


def _fill(block: Block, parts: Parts) -> memoryview:
    """Write a block's head, descriptor and metadata; returns its data area."""
    descriptor, metadata = parts.descriptor, parts.metadata
    memory, at = block.segment.memory, block.offset
    layout.BLOCK_HEAD.pack_into(
        memory, at, layout.BLOCK_MAGIC, len(descriptor), len(metadata), parts.layout,
        block.stamp, parts.timestamp_ns, parts.data_offset, parts.length, parts.null_count,
    )  # fmt: skip
    start = at + layout.BLOCK_HEAD_SIZE
    end = start + len(descriptor)
    memory[start:end] = descriptor
    if metadata:
        memory[end : end + len(metadata)] = metadata
    return block.segment.view[at + parts.data_offset : at + parts.total]


def _note(words: memoryview, source: int) -> None:
    # No call between the two: a kill leaves at most one message in doubt, see `_last_source`.
    words[layout.P_SOURCE_SENT] = words[layout.P_SENT]
    words[layout.P_SOURCE] = max(source, words[layout.P_SOURCE])


def _write_news(sender: Sender, route: Route, kind: RecordKind, error: str) -> bool:
    """As the runner does for a local source: one record without a block."""
    own = route.words
    if kind is RecordKind.NODE_FAILED:
        text = error.encode("utf-8", "replace")[: layout.NOTICE_SIZE]
        sender.board.notice(route.spec.area)[: len(text)] = text
        own[layout.X_NOTICE_LENGTH] = len(text)
    sequence = own[layout.P_SENT] + 1
    tags = layout.pack_tags(layout.NO_SLOT, 0, kind, layout.FLAG_PROTECTED)
    record = layout.RECORD.pack(sequence, 0, 0, 0, 0, 0, tags, sequence ^ layout.CHECK)
    own[layout.P_SENT] = sequence
    try:
        os.write(route.ends.data_write if route.backpressure else route.ends.urgent_write, record)
    except BlockingIOError:
        own[layout.P_SENT] = sequence - 1
        return False
    return True


def _last_source(route: Route, life: int) -> int:
    """What the queue has of this life of its source, the record in doubt included."""
    own = route.words
    if own[layout.P_SOURCE_LIFE] != life:
        own[layout.P_SOURCE] = 0
        own[layout.P_SOURCE_NEXT] = 0
        own[layout.P_SOURCE_SENT] = own[layout.P_SENT]
        own[layout.P_SOURCE_LIFE] = life
    elif own[layout.P_SENT] != own[layout.P_SOURCE_SENT] and _record_is_there(route):
        _note(own, own[layout.P_SOURCE_NEXT])
    return int(own[layout.P_SOURCE])


def _record_is_there(route: Route) -> bool:
    """Whether a producer that was killed after it counted a record has also written it.

    The consumer may be about to count one that it has just read, so look again.
    """
    own = route.words
    for _ in range(_LOOKS):
        expected = own[layout.P_SENT] - own[layout.C_RECEIVED] - own[layout.P_EVICTED]
        waiting = bytes_waiting(route.ends.data_read) // layout.RECORD_SIZE
        if own[layout.C_LAST_DATA] >= own[layout.P_SENT]:
            return True
        if waiting >= expected:
            return True
        os.sched_yield()
    return False
