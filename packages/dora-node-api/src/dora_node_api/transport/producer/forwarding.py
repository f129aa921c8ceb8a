"""Sender for messages of a source on another machine: in its order, each message once.

It is also the single writer of lifecycle records (as `QueueKeeper` is for local sources), and it
notes on the status board which of the source's messages each queue has, so that the process which
replaces a killed one continues there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from dora_node_api.transport.producer.blocks import Hold
from dora_node_api.transport.producer.pool import PoolBlock
from dora_node_api.transport.producer.route import OutputRoutes, Route
from dora_node_api.transport.producer.sending import Sender
from dora_node_api.transport.shared import layout
from dora_node_api.transport.shared.layout import RecordKind
from dora_node_api.transport.shared.payload import BlockImage, Payload
from dora_node_api.transport.shared.queue import bytes_waiting
from dora_node_api.transport.shared.queue_keeper import write_lifecycle

_P_SENT = layout.P_SENT
_P_EVICTED = layout.P_EVICTED
_P_SOURCE = layout.P_SOURCE
_P_SOURCE_NEXT = layout.P_SOURCE_NEXT
_P_SOURCE_SENT = layout.P_SOURCE_SENT
_C_RECEIVED = layout.C_RECEIVED
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

    def allocate(self, output: str, total: int) -> Hold:
        """Return a block of ``total`` bytes to fill. Raises PoolExhausted."""
        return self._allocate(total, self._outputs.get(output))

    def allocate_at_once(self, output: str, total: int) -> Hold | None:
        """Do what `allocate` does, but return None where that waits or drops older messages."""
        hold = Hold(self._returned)
        self._check()
        with self._lock, self._integrity:
            self._take_back()
            block = self._take_at_once(self._table.of(output), total)
            if block is None:
                return None
            hold.block = block
            block.pinned = True
        return hold

    def _take_at_once(self, routes: Iterable[Route], total: int) -> PoolBlock | None:
        for route in routes:
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

    def forward(
        self,
        output: str,
        message: BlockImage | Hold,
        total: int,
        source: int,
        sent_ns: int,
        flags: int = 0,
        *,
        wait: bool = False,
    ) -> bool:
        """Put a message into every queue that has not had message ``source`` yet.

        ``message``: a filled block, or an image for a block of ``total`` bytes. ``sent_ns``: send
        time in this machine's CLOCK_MONOTONIC. Without ``wait``, False when a queue, its pipe or
        memory makes it wait; then call it again with ``wait``. Raises PoolExhausted then.
        It is one function because instructions are slow after a sleep, and calls add many.
        """
        known = self._outputs.get(output)
        if self.forked or self._owned():
            self._check()
        if known is None or not known.routes:
            return True
        if wait:
            self._forward_waiting(known, message, total, source, sent_ns, flags)
            return True
        routes, pool, integrity = known.routes, self.pool, self._integrity
        with self._lock:
            if integrity.broken or self._returned:
                integrity.check()
                self._take_back()
            try:
                for route in routes if known.backpressure else ():
                    if route.backpressure and (own := route.words)[_P_SOURCE] < source:
                        waiting = own[_P_SENT] - own[_C_RECEIVED] - own[_P_EVICTED]
                        if (
                            waiting >= route.bound
                            and bytes_waiting(route.ends.data_read) >= route.bound_bytes
                        ):
                            return False
                if isinstance(message, BlockImage):
                    found = pool.take(total, grow=False) or self._take_at_once(routes, total)
                    if found is None:
                        return False
                    block = found
                    message.write(block.segment.memory, block.offset, block.stamp)
                else:
                    assert message.block is not None
                    block = message.block
                word = self._segment_base | block.segment.number
                done = True
                for route in routes:
                    own = route.words
                    if own[_P_SOURCE] >= source:
                        continue
                    own[_P_SOURCE_NEXT] = source
                    if route.removed or route.push(
                        self._record, word, block, total, sent_ns, flags
                    ):
                        own[_P_SOURCE] = source
                        own[_P_SOURCE_SENT] = own[_P_SENT]
                    else:
                        done = False  # its pipe is smaller than its bound
                    if route.first_drop:
                        self._drops.append(route)
                if done and isinstance(message, Hold):
                    message.block = None
                    block.pinned = False
                if not (block.pinned or block.refs):
                    pool.give(block)
                if sent_ns > self._trim_at:
                    self._trim(_monotonic_ns())
            except BaseException as error:
                integrity.left_by(type(error))
                raise
        if self._drops:
            self._report_drops()
        return done

    def _forward_waiting(
        self,
        known: OutputRoutes,
        message: BlockImage | Hold,
        total: int,
        source: int,
        sent_ns: int,
        flags: int,
    ) -> None:
        hold = message if isinstance(message, Hold) else self._hold_of(known, message)
        block = hold.block
        assert block is not None
        for route in known.routes:
            if route.words[_P_SOURCE] < source:
                route.words[_P_SOURCE_NEXT] = source
                self._push_or_wait(route, block, total, flags, sent_ns)
                _note(route.words, source)
        self._finish(hold)
        if self._drops:
            self._report_drops()

    def _hold_of(self, known: OutputRoutes, image: BlockImage) -> Hold:
        hold = self._allocate(image.total, known)
        block = hold.block
        assert block is not None
        image.write(block.segment.memory, block.offset, block.stamp)
        return hold

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
