"""The sending end of a node: one copy into shared memory, then a record for every edge.

One lock, held for microseconds, guards the pool and every route. What may take long, a large copy
or a wait for room, happens without it, on a block that a `Hold` owns: if an exception ends the send
there, the hold's finalizer returns the block. An exception that a signal handler raises under the
lock makes the sender unusable (`Integrity`).
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable, Iterable
from threading import get_ident
from typing import TYPE_CHECKING

from dora_node_api.transport.producer.blocks import Hold, SampleMemory
from dora_node_api.transport.producer.pool import Pool, PoolBlock
from dora_node_api.transport.producer.route import OutputRoutes, Route, RouteTable
from dora_node_api.transport.shared import layout
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.errors import PoolExhausted
from dora_node_api.transport.shared.fork_guard import ForkAware, forked_error
from dora_node_api.transport.shared.interruption import Integrity, OwnedLock, interrupting
from dora_node_api.transport.shared.layout import PAGE, RECORD_SIZE
from dora_node_api.transport.shared.queue import QueueEnds
from dora_node_api.transport.shared.specs import QueueSpec

if TYPE_CHECKING:
    from dora_node_api.transport.shared.payload import Payload

WaitForRoom = Callable[[QueueSpec, int, float], bool]
"""Called as ``wait_for_room(spec, fd, timeout)`` when a backpressure queue is full.

It must return True once ``fd`` is readable or ``timeout`` seconds have passed (the sender then
tries again), return False to give up this message on this edge (counted as dropped), or raise to
give up the send. The sender's locks for other outputs are free meanwhile; add_route and
remove_route may be called within.
"""
OnFirstDrop = Callable[[QueueSpec, str], None]
"""Called once per edge, after the send, with a sentence that names the setting to change."""

_COPY_UNDER_LOCK = 4 << 20
"""Largest message in bytes that is copied under the lock; larger copies let other threads send."""
_GROW_AT_ONCE = 256 * 1024
"""Largest message in bytes for which the pool may grow before all routes are swept."""
_COLLECT_MASK = 7
"""Mask of a block's stamp: a small message collects released blocks at every eighth stamp."""
_RELEASE_TIMEOUT_NS = 1_000_000_000
"""Nanoseconds that a sender waits for the reader of an empty queue to release memory."""
_RECHECK_SECONDS = 0.1
"""Seconds between two checks of a full queue; the doorbell wakes the sender earlier."""
_TRIM_EVERY_NS = 5_000_000_000
"""Interval at which unused memory is given back."""
_monotonic_ns = time.monotonic_ns
_time_ns = time.time_ns


def wait_readable(_spec: QueueSpec, fd: int, timeout: float) -> bool:
    """Default `WaitForRoom`."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.poll(max(1, int(timeout * 1000)))
    return True


def _collect(routes: tuple[Route, ...], pool: Pool) -> None:
    """Take back the blocks of an output's messages that consumers have released."""
    for route in routes:
        if route.order:
            route.collect(pool)


class Sender(ForkAware):
    """Sends a node's outputs. Thread-safe; unusable in forked children (NodeForked)."""

    def __init__(
        self,
        pool: Pool,
        board: Board,
        incarnation: int,
        *,
        wait_for_room: WaitForRoom | None = None,
        on_first_drop: OnFirstDrop | None = None,
        integrity: Integrity | None = None,
    ) -> None:
        super().__init__()
        self.pool = pool
        self.board = board
        self.incarnation = incarnation
        self._segment_base = incarnation << 32
        self._wait_for_room = wait_for_room or wait_readable
        self._on_first_drop = on_first_drop
        self._integrity = integrity or Integrity()
        self._table = RouteTable()
        self._outputs = self._table.outputs
        self._lock = OwnedLock()
        self._owned = self._lock.owned
        self._returned: deque[PoolBlock] = deque()
        """Blocks of holds that were dropped, to be given back to the pool."""
        self._trim_at = 0
        self._drops: list[Route] = []
        self._record = bytearray(RECORD_SIZE)

    # --- routes -------------------------------------------------------------------------------
    def add_route(self, output: str, spec: QueueSpec, ends: QueueEnds) -> None:
        """Send ``output`` to this queue too from now on. Takes ``ends`` over.

        A queue that has a route already keeps it: two routes would share one ledger.
        """
        self._check()
        with self._lock, self._integrity:
            if self._table.has(spec.queue):
                ends.close()
            else:
                self._table.add(output, Route(spec, ends, self.board, self.incarnation))

    def remove_route(self, queue: int) -> None:
        """Stop sending to a queue, close its descriptors, free what was outstanding on it.

        What a living consumer holds stays until it is released. An unknown number is ignored. A
        send that waits for the queue continues without it.
        """
        self._check()
        with self._lock, self._integrity:
            self._take_back()
            self._table.remove(queue, self.pool)
            if not any(self._table):
                self.pool.release_free()  # no send will trim the pool any more

    def routes(self, output: str) -> int:
        """Return the number of queues that ``output`` goes to."""
        return len(self._table.of(output))

    # --- sending ------------------------------------------------------------------------------
    def send(self, output: str, payload: Payload, flags: int = 0) -> int:
        """Send one message to every queue of ``output``; return how many took it.

        drop_oldest queues are served first, then backpressure queues are waited for. ``flags`` are
        FLAG_PROTECTED and FLAG_FLUSH. Without routes nothing is copied. Raises PoolExhausted,
        NodeForked, NodeInterrupted, and what ``wait_for_room`` raises.
        """
        known = self._outputs.get(output)
        if self.forked:
            raise forked_error()
        if known is None or not known.routes:
            return 0
        total = payload.total
        if total > _COPY_UNDER_LOCK:
            return self._send_slowly(known, payload, flags)
        if self._owned():
            self._check()
        integrity, pool, hold = self._integrity, self.pool, None
        with self._lock:
            if integrity.broken or self._returned:
                integrity.check()
                self._take_back()
            try:
                routes = known.routes
                # Released blocks are collected after the records, which consumers wait for.
                used = block = pool.take(total, grow=False) if total <= _GROW_AT_ONCE else None
                if block is None:
                    _collect(routes, pool)
                    block = self._take_or_grow(total)
                if block is not None:
                    now = _monotonic_ns()
                    if not payload.timestamp_ns:
                        payload.timestamp_ns = _time_ns()
                    segment = block.segment
                    payload.write_into(segment.memory, block.offset, block.stamp)
                    word, record = self._segment_base | segment.number, self._record
                    full: list[Route] | None = None
                    for route in routes:
                        if (route.backpressure and known.waiting) or not route.push(
                            record, word, block, total, now, flags
                        ):
                            full = [*(full or ()), route]
                        if route.first_drop:
                            self._drops.append(route)
                    if full:
                        hold = Hold(self._returned)
                        hold.block, block.pinned = block, True
                    elif not block.refs:
                        pool.give(block)
                    if used is not None and (total >= PAGE or not block.stamp & _COLLECT_MASK):
                        for route in routes:
                            if route.order:
                                route.collect(pool)
                    if now > self._trim_at:
                        self._trim(now)
            except BaseException as error:
                integrity.left_by(type(error))
                raise
        if block is None:
            return self._send_slowly(known, payload, flags)
        taken = len(routes)
        if hold is not None and full:
            taken += self._deliver_in_order(known, full, block, total, flags) - len(full)
            self._finish(hold)
        if self._drops:
            self._report_drops()
        return taken

    def _send_slowly(self, known: OutputRoutes, payload: Payload, flags: int) -> int:
        """Send a message whose copy or allocation takes too long to hold the lock."""
        hold = self._allocate(payload.total, known)
        self._fill(hold, payload)
        if not payload.timestamp_ns and hold.block is not None:
            # Readers relate it to the time of the record, which is written next.
            layout.WORD.pack_into(hold.block.view, layout.BLOCK_WALL, _time_ns())
        return self._deliver(known, hold, payload.total, flags)

    def _take_or_grow(self, total: int) -> PoolBlock | None:
        """Return a free block, or a new one if it is small; None without one."""
        try:
            return self.pool.take(total, grow=total <= _GROW_AT_ONCE)
        except MemoryError:
            return None

    def _fill(self, hold: Hold, payload: Payload) -> None:
        block = hold.block
        assert block is not None
        payload.write_into(block.segment.memory, block.offset, block.stamp)

    def _deliver(self, known: OutputRoutes, hold: Hold, total: int, flags: int) -> int:
        """Write the records of a filled block: drop_oldest queues at once, then the others."""
        block = hold.block
        assert block is not None
        now = _monotonic_ns()
        taken = 0
        self._check()
        with self._lock, self._integrity:
            self._take_back()
            waiting = tuple(r for r in known.routes if r.backpressure)
            for route in known.routes:
                if not route.backpressure:
                    self._push(route, block, total, now, flags)
                    taken += 1
        if waiting:
            taken += self._deliver_in_order(known, waiting, block, total, flags)
        self._finish(hold)
        if self._drops:
            self._report_drops()
        return taken

    def _deliver_in_order(
        self,
        known: OutputRoutes,
        waiting: Iterable[Route],
        block: PoolBlock,
        total: int,
        flags: int,
    ) -> int:
        if known.order.owned():
            raise interrupting()
        try:
            known.waiting.add(get_ident())
            with known.order:
                return sum(self._push_or_wait(route, block, total, flags) for route in waiting)
        finally:
            known.waiting.discard(get_ident())

    def _push(self, route: Route, block: PoolBlock, total: int, now: int, flags: int) -> bool:
        word = self._segment_base | block.segment.number
        done = route.push(self._record, word, block, total, now, flags)
        if route.first_drop:
            self._drops.append(route)
        return done

    def _try_push(
        self, route: Route, block: PoolBlock, total: int, flags: int, sent_ns: int | None
    ) -> bool:
        self._check()
        with self._lock, self._integrity:
            self._take_back()
            if route.removed:
                return True
            route.clear_room()
            now = _monotonic_ns() if sent_ns is None else sent_ns
            return self._push(route, block, total, now, flags)

    def _push_or_wait(
        self, route: Route, block: PoolBlock, total: int, flags: int, sent_ns: int | None = None
    ) -> bool:
        """Write the record once there is room; False when the message was given up.

        ``sent_ns`` is the send time; None for the time of writing.
        """
        if self._try_push(route, block, total, flags, sent_ns):
            return not route.removed
        try:
            # The consumer rings the doorbell if the word is set. Each side enters the pipe's lock
            # between its store and its check, so at least one of them reads the other's store.
            route.set_blocked(True)
            while not self._try_push(route, block, total, flags, sent_ns):
                if not self._wait_for_room(route.spec, route.ends.room_read, _RECHECK_SECONDS):
                    self._give_up(route)
                    return False
        finally:
            route.set_blocked(False)
        return not route.removed

    def _give_up(self, route: Route) -> None:
        self._check()
        with self._lock, self._integrity:
            self._take_back()
            route.refuse(None)

    def _finish(self, hold: Hold) -> None:
        """Leave the block to its records; without any it is free again."""
        self._check()
        with self._lock, self._integrity:
            self._take_back()
            block = hold.block
            hold.block = None
            if block is not None:
                block.pinned = False
                if not block.refs:
                    self.pool.give(block)
            now = _monotonic_ns()
            if now > self._trim_at:
                self._trim(now)

    def _report_drops(self) -> None:
        drops, self._drops = self._drops, []
        for route in drops:
            if route.first_drop:
                route.first_drop = False
                if self._on_first_drop is not None:
                    self._on_first_drop(route.spec, route.reason_for_drops(self.pool.cap_bytes))

    # --- samples ------------------------------------------------------------------------------
    def allocate_sample(self, nbytes: int, metadata: bytes = b"") -> SampleMemory:
        """Return memory for ``nbytes`` bytes that the receivers get as a UInt8Array.

        ``metadata`` comes from `encode_metadata`. Raises PoolExhausted.
        """
        from dora_node_api.data.arrow import raw_payload

        payload = raw_payload(nbytes, metadata)
        hold = self._allocate(payload.total, None)
        self._fill(hold, payload)
        return SampleMemory(hold, payload.data_offset, nbytes)

    def send_sample(self, output: str, sample: SampleMemory, flags: int = 0) -> int:
        """Send a sample without a copy. Raises SampleError, and sends nothing, if views of it are
        open or it was sent or discarded before."""
        if self.forked:
            raise forked_error()
        block = sample.block
        sample.close_views()
        known = self._outputs.get(output)
        if known is None or not known.routes:
            sample.discard()
            return 0
        layout.WORD.pack_into(block.view, layout.BLOCK_WALL, _time_ns())
        return self._deliver(known, sample.take_hold(), sample.total, flags)

    # --- memory -------------------------------------------------------------------------------
    def _allocate(self, total: int, known: OutputRoutes | None) -> Hold:
        """Return a hold on a block of ``total`` bytes; older messages are dropped if necessary.

        Raises PoolExhausted.
        """
        hold = Hold(self._returned)
        patience = 0
        while True:
            self._check()
            with self._lock, self._integrity:
                self._take_back()
                block = self._take_or_evict(total, known)
                if block is not None:
                    hold.block = block
                    block.pinned = True
                    return hold
                full = self._table.queue_to_wait_for() if total <= self.pool.cap_bytes else None
            if full is None or (patience and _monotonic_ns() > patience):
                raise PoolExhausted(total, self.pool.cap_bytes, self.held_bytes())
            if full.waiting():
                patience = 0
            elif not patience:
                patience = _monotonic_ns() + _RELEASE_TIMEOUT_NS
            if not self._wait_for_room(full.spec, full.ends.room_read, 0.005):
                raise PoolExhausted(total, self.pool.cap_bytes, self.held_bytes())

    def _take_or_evict(self, total: int, known: OutputRoutes | None) -> PoolBlock | None:
        pool = self.pool
        if known is not None:
            _collect(known.routes, pool)
        try:
            if (block := pool.take(total, grow=False)) is not None:
                return block
            # Before the pool grows, collect everything that was released.
            self._table.sweep(pool)
            if (block := pool.take(total)) is not None:
                return block
            while total <= pool.cap_bytes and self._table.evict_oldest():
                if (block := pool.take(total)) is not None:
                    return block
        except MemoryError as error:
            held = self._table.held_bytes()
            raise PoolExhausted(total, pool.cap_bytes, held, str(error)) from error
        return None

    def _take_back(self) -> None:
        """Give blocks of dropped holds back to the pool."""
        while self._returned:
            block = self._returned.popleft()
            block.pinned = False
            if not block.refs:
                self.pool.give(block)

    def _trim(self, now: int) -> None:
        if self._trim_at:
            self._table.sweep(self.pool)
            self.pool.trim()
        self._trim_at = now + _TRIM_EVERY_NS

    def held_bytes(self) -> dict[str, int]:
        """Return the bytes that are queued or held by the consumer, by edge."""
        self._check()
        with self._lock, self._integrity:
            self._take_back()
            self._table.sweep(self.pool)
            return self._table.held_bytes()

    # --- the lock -----------------------------------------------------------------------------
    def _check(self) -> None:
        """Raise where the sender must not be used: in a forked child, or inside its own lock."""
        if self.forked:
            raise forked_error()
        if self._owned():
            raise interrupting()

    def close(self) -> None:
        """Close every route and the pool. What was sent stays readable."""
        if self.forked:
            return
        self._check()
        with self._lock:
            self._table.close()
            self.pool.close()
