"""Sender for messages of a source on another machine: in its order, each message once.

It is also the single writer of lifecycle records (as `QueueKeeper` is for local sources), and it
notes on the status board which of the source's messages each queue has, so that the process which
replaces a killed one continues there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from dora_node_api.transport.producer.blocks import Hold
from dora_node_api.transport.producer.pool import Block
from dora_node_api.transport.producer.route import Route
from dora_node_api.transport.producer.sending import Sender
from dora_node_api.transport.shared import layout
from dora_node_api.transport.shared.layout import RecordKind
from dora_node_api.transport.shared.payload import STAMP_AT, BlockImage, Payload
from dora_node_api.transport.shared.queue import bytes_waiting
from dora_node_api.transport.shared.queue_keeper import write_lifecycle

_P_SENT = layout.P_SENT
_P_EVICTED = layout.P_EVICTED
_P_SOURCE = layout.P_SOURCE
_P_SOURCE_NEXT = layout.P_SOURCE_NEXT
_P_SOURCE_SENT = layout.P_SOURCE_SENT
_C_RECEIVED = layout.C_RECEIVED
_pack_stamp = layout.WORD.pack_into
_monotonic_ns = time.monotonic_ns
_LOOKS = 50
"""Looks at a pipe for a record that a killed producer may have written."""


class Forwarder(Sender):
    """Sends messages of remote sources. One thread at a time for each output."""

    def queues(self, output: str) -> set[int]:
        """Return the numbers of the queues that ``output`` goes to."""
        return {route.spec.queue for route in self._table.of(output)}

    def resume(self, output: str, run_hash: int) -> int:
        """Return the last message of this run of the source that every queue has; 0: none.

        Call it once before the output's first message and again when the source's run changes.
        """
        lasts = (_last_source(route, run_hash) for route in self._table.of(output))
        return min(lasts, default=0)

    def run_hash(self, output: str) -> int:
        """Return the run of the source whose messages the queues have; 0 for none."""
        routes = self._table.of(output)
        return max((int(route.words[layout.P_SOURCE_RUN]) for route in routes), default=0)

    def waits(self, output: str) -> bool:
        """Whether one of its queues is a backpressure queue."""
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
        """Return a block of ``total`` bytes to fill. Raises PoolExhausted."""
        return self._allocate(total, self._outputs.get(output))

    def allocate_at_once(self, output: str, total: int) -> Hold | None:
        """As `allocate`, but None where it would have to wait or to drop older messages."""
        hold = Hold(self._returned)
        self._check()
        with self._lock, self._integrity:
            self._take_back()
            block = self._take_at_once(output, total)
            if block is None:
                return None
            hold.block = block
            block.pinned = True
        return hold

    def _take_at_once(self, output: str, total: int) -> Block | None:
        for route in self._table.of(output):
            if route.order:
                route.collect(self.pool)
        try:
            return self.pool.take(total)
        except MemoryError:
            return None

    def fill_head(self, hold: Hold, payload: Payload) -> memoryview:
        """Write all but the data area of a block; return the data area, for the caller to fill."""
        block = hold.block
        assert block is not None
        payload.write_head(block.segment.memory, block.offset, block.stamp)
        return block.view[payload.data_offset : payload.total]

    def fill_image(self, hold: Hold, image: BlockImage) -> None:
        """Write an image into a block."""
        block = hold.block
        assert block is not None
        image.write(block.segment.memory, block.offset, block.stamp)

    def _missing(self, output: str, source: int) -> Iterator[Route]:
        """Yield the routes without message ``source``, each noted as being written."""
        for route in self._table.of(output):
            if route.words[layout.P_SOURCE] < source:
                route.words[layout.P_SOURCE_NEXT] = source
                yield route

    def forward(
        self,
        output: str,
        hold: Hold,
        total: int,
        *,
        source: int,
        sent_ns: int,
        flags: int,
        wait: bool = True,
    ) -> bool:
        """Put a filled block into every queue that has not had message ``source`` yet.

        Waits for backpressure queues; the others are served first. ``sent_ns`` is the send time in
        this machine's CLOCK_MONOTONIC. Without ``wait``: False when a queue or its pipe, which may
        be smaller than its bound, has no room; call it again, it skips the queues that have it.
        """
        block = hold.block
        assert block is not None
        done = wait or self.has_room(output)
        for route in self._missing(output, source) if done else ():
            if wait:
                self._push_or_wait(route, block, total, flags, sent_ns)
            elif not self._try_push(route, block, total, flags, sent_ns):
                done = False
                continue
            _note(route.words, source)
        if done:
            self._finish(hold)
        if self._drops:
            self._report_drops()
        return done

    def forward_image(
        self, output: str, image: BlockImage, *, source: int, sent_ns: int, flags: int
    ) -> bool:
        """Put an image into every queue, if neither a queue nor memory makes it wait.

        False when something would: then call `forward`, which skips the queues that have it.
        """
        if not self._table.of(output):
            return True
        if not self.has_room(output):
            return False
        self._check()
        total = image.total
        with self._lock, self._integrity:
            self._take_back()
            block = self._take_at_once(output, total)
            if block is None:
                return False
            image.write(block.segment.memory, block.offset, block.stamp)
            done = True
            for route in self._missing(output, source):
                if route.removed or self._push(route, block, total, sent_ns, flags):
                    _note(route.words, source)
                else:
                    done = False
            if not block.refs:
                self.pool.give(block)
            now = time.monotonic_ns()
            if now > self._trim_at:
                self._trim(now)
        if self._drops:
            self._report_drops()
        return done

    def forward_small(
        self,
        output: str,
        frame: bytes,
        start: int,
        end: int,
        head: int,
        total: int,
        *,
        source: int,
        sent_ns: int,
    ) -> bool:
        """As `forward_image`, for the usual case; False, with nothing sent, in any other.

        That is one queue that need not be waited for, and a block that was used before. The image
        lies between ``start`` and ``end``. ``head``: its bytes before its data area; ``total``:
        bytes of its block. One function, because a process that slept runs few instructions much
        faster than many.
        """
        known = self._outputs.get(output)
        if known is None or len(known.routes) != 1 or self.forked or self._owned():
            return False
        route = known.routes[0]
        own, pool, integrity = route.words, self.pool, self._integrity
        with self._lock:
            if (
                own[_P_SOURCE] >= source
                or (
                    route.backpressure
                    and own[_P_SENT] - own[_C_RECEIVED] - own[_P_EVICTED] >= route.bound
                )
                or route.removed
                or integrity.broken
                or self._returned
            ):
                return False
            try:
                block = pool.take_used(total)
                if block is None:
                    route.collect(pool)
                    block = pool.take_used(total)
                if block is None:
                    return False
                segment, at = block.segment, block.offset
                memory = segment.memory
                data = memoryview(frame)[start + head : end]
                memory[at : at + head] = frame[start : start + head]
                _pack_stamp(memory, at + STAMP_AT, block.stamp)
                memory[at + total - len(data) : at + total] = data
                own[_P_SOURCE_NEXT] = source
                word = self._segment_base | segment.number
                done = route.push(self._record, word, block, total, sent_ns, 0)
                if done:
                    own[_P_SOURCE] = source
                    own[_P_SOURCE_SENT] = own[_P_SENT]
                if not block.refs:
                    pool.give(block)
                if sent_ns > self._trim_at:
                    self._trim(_monotonic_ns())
            except BaseException as error:
                integrity.left_by(type(error))
                raise
        if route.first_drop:
            self._drops.append(route)
            self._report_drops()
        return done

    def announce(self, output: str, kind: RecordKind, error: str = "", *, source: int = 0) -> bool:
        """Write a lifecycle record into every queue of ``output``.

        ``source`` is its place among the source's messages (0: none). False when a queue had no
        room for it: call again later.
        """
        done = True
        for route in self._table.of(output):
            own = route.words
            if source and own[layout.P_SOURCE] >= source:
                continue
            own[layout.P_SOURCE_NEXT] = source
            with self._lock, self._integrity:
                written = route.removed or write_lifecycle(
                    self.board, route.spec, route.ends, kind, error
                )
            if not written:
                done = False
            elif source:
                _note(own, source)
        return done

    def skip(self, output: str, source: int) -> None:
        """Note that message ``source`` will not come, or was invalid."""
        for route in self._table.of(output):
            _note(route.words, source)


def _note(words: memoryview, source: int) -> None:
    # After a kill between the two the message is in doubt, and `_last_source` finds its record.
    words[layout.P_SOURCE] = max(source, words[layout.P_SOURCE])
    words[layout.P_SOURCE_SENT] = words[layout.P_SENT]


def _last_source(route: Route, run_hash: int) -> int:
    """Return the last message the queue has of this run of its source, one in doubt included."""
    own = route.words
    if own[layout.P_SOURCE_RUN] != run_hash:
        own[layout.P_SOURCE] = 0
        own[layout.P_SOURCE_NEXT] = 0
        own[layout.P_SOURCE_SENT] = own[layout.P_SENT]
        own[layout.P_SOURCE_RUN] = run_hash
    elif own[layout.P_SENT] != own[layout.P_SOURCE_SENT] and _record_is_there(route):
        _note(own, own[layout.P_SOURCE_NEXT])
    return int(own[layout.P_SOURCE])


def _record_is_there(route: Route) -> bool:
    """Whether a producer that was killed after it counted a record has also written it.

    Looks repeatedly: the consumer may be about to count a record that it has just read.
    """
    own = route.words
    for _ in range(_LOOKS):
        left = own[layout.P_SENT] - own[layout.P_EVICTED] - own[layout.P_REFUSED]
        expected = left - own[layout.C_RECEIVED]
        waiting = route.ends.depth()
        if max(own[layout.C_LAST_DATA], own[layout.C_LAST_URGENT]) >= own[layout.P_SENT]:
            return True
        if waiting >= expected:
            return True
        os.sched_yield()
    return False
