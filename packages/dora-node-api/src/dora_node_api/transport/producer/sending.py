"""The sending end of a node: one copy into shared memory, then a record for every edge.

One lock, held for microseconds, guards the pool and every route. What may take long, a large copy
or a wait for room, is done without it, on a block that a `Hold` owns: should an exception end the
send there, the hold's finalizer gives the block back. What happens under the lock needs no such
care: `_inside` stays True when an exception comes out of it, and the next one to enter makes every
list again from the tables that tell the truth.
"""

from __future__ import annotations

import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from dora_node_api.transport.producer.blocks import Hold, Sample
from dora_node_api.transport.producer.pool import Block, Pool
from dora_node_api.transport.producer.route import Route
from dora_node_api.transport.shared import layout
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.errors import PoolExhausted
from dora_node_api.transport.shared.fork_guard import ForkAware, forked_error
from dora_node_api.transport.shared.layout import BLOCK_HEAD, BLOCK_MAGIC, RECORD_SIZE
from dora_node_api.transport.shared.queue import QueueEnds, shortfall
from dora_node_api.transport.shared.specs import QueueSpec

if TYPE_CHECKING:
    from dora_node_api.data.arrow import EncodedPayload

WaitForRoom = Callable[[QueueSpec, int, float], bool]
"""Called as ``wait_for_room(spec, fd, timeout)`` when a backpressure queue is full.

It must come back with True once ``fd`` is readable or ``timeout`` seconds have passed (the sender
then looks again), or with False to give this one message up on this edge (counted as dropped), or
raise to give the whole send up. The sender's locks for other outputs are free meanwhile; add_route
and remove_route may be called within.
"""
OnFirstDrop = Callable[[QueueSpec, str], None]
"""Called once per edge, after the send, with a sentence that names the setting to change."""

# Up to here the copy is made under the lock; above, other threads may send meanwhile.
_COPY_UNDER_LOCK = 4 << 20
# Up to here the pool may grow at once; above, everything is first looked at for a free block.
_GROW_AT_ONCE = 256 * 1024
# How long a sender waits for the consumer of an empty backpressure queue to let go of memory.
_PATIENCE_NS = 1_000_000_000
_LOOK_AGAIN = 0.1  # seconds; the doorbell wakes earlier
_TRIM_EVERY_NS = 5_000_000_000
_pack_head = BLOCK_HEAD.pack_into
_monotonic_ns = time.monotonic_ns
_time_ns = time.time_ns


def wait_readable(_spec: QueueSpec, fd: int, timeout: float) -> bool:
    """The `WaitForRoom` of a sender that was given none."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.poll(max(1, int(timeout * 1000)))
    return True


def lock_with_owner() -> tuple[threading.RLock, Callable[[], bool]]:
    """A lock, and whether this thread holds it.

    It is reentrant only because such a lock knows that; noted beside a lock, whose it is would be
    stale for a moment after another thread has taken it.
    """
    lock = threading.RLock()
    return lock, lock._is_owned  # type: ignore[attr-defined]


def _collect(routes: tuple[Route, ...], pool: Pool) -> None:
    """Take back what was released of an output's messages."""
    for route in routes:
        if route.order:
            route.collect(pool)


class _Output:
    """Where one output goes, and what keeps the order of sends that wait."""

    __slots__ = ("backpressure", "holds", "order", "routes")

    def __init__(self) -> None:
        self.routes: tuple[Route, ...] = ()
        self.backpressure = False
        self.order, self.holds = lock_with_owner()


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
    ) -> None:
        super().__init__()
        self.pool = pool
        self.board = board
        self.incarnation = incarnation
        self._segment_base = incarnation << 32
        self._wait_for_room = wait_for_room or wait_readable
        self._on_first_drop = on_first_drop
        self._outputs: dict[str, _Output] = {}
        # Removed routes whose consumer may still read what it was handed.
        self._lingering: list[Route] = []
        self._lock, self._holds = lock_with_owner()
        self._inside = False
        self._returned: deque[Block] = deque()
        self._trim_at = 0
        self._drops: list[Route] = []
        self._record = bytearray(RECORD_SIZE)

    # --- routes -------------------------------------------------------------------------------
    def add_route(self, output: str, spec: QueueSpec, ends: QueueEnds) -> None:
        """Send ``output`` to this queue too from now on. Takes ``ends`` over.

        A queue that is known already is left as it is: two routes would share one ledger. So the
        call may be repeated when a signal handler has raised through it.
        """
        self._check()
        known_already = [r for r in self._all_routes() if r.spec.queue == spec.queue]
        if known_already:
            if all(r.ends.data_write != ends.data_write for r in known_already):
                ends.close()
            return
        route = Route(spec, ends, self.board, self.incarnation)
        with self._lock:
            known = self._outputs.get(output)
            if known is None:
                known = self._outputs[output] = _Output()
            known.backpressure = known.backpressure or route.backpressure
            # drop_oldest queues are served first: they never make the others wait.
            known.routes = tuple(sorted((*known.routes, route), key=lambda r: r.backpressure))

    def remove_route(self, queue: int) -> None:
        """Stop sending to a queue, close its descriptors, free what was outstanding on it.

        What a living consumer was handed stays until it is released. An unknown number is ignored.
        A send that waits for the queue goes on without it. May be repeated when a signal handler
        has raised through it.
        """
        self._check()
        with self._lock:
            self._enter()
            for known in self._outputs.values():
                routes = tuple(r for r in known.routes if r.spec.queue != queue)
                lingering = [*self._lingering, *(r for r in known.routes if r not in routes)]
                backpressure = any(r.backpressure for r in routes)
                # No call between these: a signal handler that raises finds a route in one place.
                known.routes = routes
                known.backpressure = backpressure
                self._lingering = lingering
            for route in self._lingering:
                if route.spec.queue == queue:
                    while not route.removed and route.evict():
                        pass
                    route.close()
            self._sweep_lingering()
            if not self._all_routes():
                self.pool.release_free()  # nobody reads: no send will look at the pool any more
            self._inside = False

    def routes(self, output: str) -> int:
        """How many queues ``output`` goes to."""
        known = self._outputs.get(output)
        return 0 if known is None else len(known.routes)

    # --- sending ------------------------------------------------------------------------------
    def send(
        self,
        output: str,
        payload: EncodedPayload,
        *,
        protected: bool = False,
        flush: bool = False,
        timestamp_ns: int | None = None,
    ) -> int:
        """Send one message to every queue of ``output``; returns how many took it.

        drop_oldest queues are served first, then backpressure queues are waited for.
        ``timestamp_ns`` (CLOCK_REALTIME) defaults to now. Without routes nothing is copied.
        Raises PoolExhausted, NodeForked, and what ``wait_for_room`` raises.
        """
        known = self._outputs.get(output)
        if self.forked:
            raise forked_error()
        if known is None or not known.routes:
            return 0
        total = payload.total
        flags = 0
        if protected:
            flags = layout.FLAG_PROTECTED
        if flush:
            flags |= layout.FLAG_FLUSH
        if known.backpressure or total > _COPY_UNDER_LOCK:
            return self._send_slowly(known, payload, flags, timestamp_ns)
        lock = self._lock
        if self._holds():
            self._check()
        with lock:
            if self._inside or self._returned:
                self._enter()
            self._inside = True
            routes = known.routes
            pool = self.pool
            # What the consumers are waiting for goes first, what they have released comes after.
            later = total <= _GROW_AT_ONCE and pool.has_free(total)
            if not later:
                _collect(routes, pool)
            try:
                take = pool.take if total <= _GROW_AT_ONCE else pool.take_free
                block = take(total)
            except MemoryError:
                block = None
            if block is not None:
                now = _monotonic_ns()
                self._fill(block, payload, timestamp_ns)
                word = self._segment_base | block.segment.number
                record = self._record
                for route in routes:
                    route.push(record, word, block, total, now, flags)
                    if route.drop_news:
                        self._drops.append(route)
                if not block.refs:
                    pool.give(block)
                if later:
                    _collect(routes, pool)
                if now > self._trim_at:
                    self._trim(now)
            self._inside = False
        if block is None:
            return self._send_slowly(known, payload, flags, timestamp_ns)
        if self._drops:
            self._report_drops()
        return len(routes)

    def _send_slowly(
        self, known: _Output, payload: EncodedPayload, flags: int, timestamp_ns: int | None
    ) -> int:
        """A send whose copy or wait for room others need not wait for."""
        hold = self._allocate(payload.total, known)
        block = hold.block
        assert block is not None
        self._fill(block, payload, timestamp_ns)
        return self._deliver(known, hold, payload.total, flags)

    def _fill(self, block: Block, payload: EncodedPayload, timestamp_ns: int | None) -> None:
        memory, at = block.segment.memory, block.offset
        _pack_head(
            memory,
            at,
            BLOCK_MAGIC,
            len(payload.descriptor),
            len(payload.metadata),
            payload.layout,
            block.stamp,
            _time_ns() if timestamp_ns is None else timestamp_ns,
            payload.data_offset,
            payload.length,
            payload.null_count,
        )
        payload.write_into(memory, at)

    def _deliver(self, known: _Output, hold: Hold, total: int, flags: int) -> int:
        """Write the records of a filled block: drop_oldest queues at once, then the others."""
        block = hold.block
        assert block is not None
        now = _monotonic_ns()
        taken = 0
        self._check()
        with self._lock:
            self._enter()
            waiting = tuple(r for r in known.routes if r.backpressure)
            for route in known.routes:
                if not route.backpressure:
                    self._push(route, block, total, now, flags)
                    taken += 1
                    if route.drop_news:
                        self._drops.append(route)
            self._inside = False
        if waiting:
            taken += self._deliver_in_order(known, waiting, block, total, flags)
        self._finish(hold)
        if self._drops:
            self._report_drops()
        return taken

    def _deliver_in_order(
        self, known: _Output, waiting: Iterable[Route], block: Block, total: int, flags: int
    ) -> int:
        taken = 0
        self._check(known.holds)
        with known.order:
            for route in waiting:
                if self._push_or_wait(route, block, total, flags):
                    taken += 1
        return taken

    def _try_push(self, route: Route, block: Block, total: int, flags: int) -> bool:
        self._check()
        with self._lock:
            self._enter()
            done = route.removed
            if not done:
                route.clear_room()
                done = self._push(route, block, total, _monotonic_ns(), flags)
            self._inside = False
        return done

    def _push(self, route: Route, block: Block, total: int, now: int, flags: int) -> bool:
        word = self._segment_base | block.segment.number
        return route.push(self._record, word, block, total, now, flags)

    def _push_or_wait(self, route: Route, block: Block, total: int, flags: int) -> bool:
        """Write the record once there is room; False when the message was given up."""
        if self._try_push(route, block, total, flags):
            return not route.removed
        start = _monotonic_ns()
        try:
            # The consumer rings when it sees the word; both sides go through the pipe's own lock
            # between their store and their look, so one of the two sees the other.
            route.set_blocked(True)
            while not self._try_push(route, block, total, flags):
                if not self._wait_for_room(route.spec, route.ends.room_read, _LOOK_AGAIN):
                    self._give_up(route)
                    return False
        finally:
            route.set_blocked(False)
            route.add_blocked_time(start)
        return not route.removed

    def _give_up(self, route: Route) -> None:
        self._check()
        with self._lock:
            self._enter()
            route.refuse()
            if route.drop_news:
                self._drops.append(route)
            self._inside = False

    def _finish(self, hold: Hold) -> None:
        """The records own the block now; without any it is free again."""
        self._check()
        with self._lock:
            self._enter()
            block = hold.block
            hold.block = None
            if block is not None:
                block.pinned = False
                if not block.refs:
                    self.pool.give(block)
            if _monotonic_ns() > self._trim_at:
                self._trim(_monotonic_ns())
            self._inside = False

    def _report_drops(self) -> None:
        drops, self._drops = self._drops, []
        for route in drops:
            if not route.drop_news:
                continue
            route.drop_news = False
            if self._on_first_drop is not None:
                self._on_first_drop(route.spec, self._why_dropped(route))

    def _why_dropped(self, route: Route) -> str:
        spec = route.spec
        if route.evicted_for_memory:
            return (
                f"{spec.edge}: the {self.pool.cap_bytes:,} bytes of shared memory that "
                f"{spec.producer} may use are taken, so the oldest messages that wait are dropped "
                "from now on. If that is not wanted, raise its `shared_memory_pool_size` "
                "(DORA_NODE_SHM_POOL_SIZE)"
            )
        if not route.words[layout.P_EVICTED]:
            return (
                f"{spec.edge}: {route.urgent_bytes // layout.RECORD_SIZE} requests and goals wait, "
                "as many as fit, so further ones are dropped from now on. Read them sooner, send "
                "fewer at once, or set `queue_policy: backpressure`"
            )
        if (short := shortfall(spec, route.ends)) is not None:
            return f"{spec.edge}: the oldest messages are dropped from now on, as {short}"
        return (
            f"{spec.edge}: the input is full ({spec.bound} messages wait), so its oldest "
            "messages are dropped from now on. If that is not wanted, raise `queue_size` "
            "of the input or set its `queue_policy: backpressure`"
        )

    # --- samples ------------------------------------------------------------------------------
    def allocate_sample(self, nbytes: int, metadata: bytes = b"") -> Sample:
        """Memory for ``nbytes`` bytes that the receivers see as a UInt8Array.

        ``metadata`` comes from `encode_metadata`. Raises PoolExhausted.
        """
        from dora_node_api.data.arrow import raw_payload

        payload = raw_payload(nbytes, metadata)
        hold = self._allocate(payload.total, None)
        assert hold.block is not None
        self._fill(hold.block, payload, None)
        return Sample(hold, payload.data_offset, nbytes)

    def send_sample(
        self, output: str, sample: Sample, *, protected: bool = False, flush: bool = False
    ) -> int:
        """Send a sample, without a copy. Raises SampleError if views of it are open or it was
        sent or discarded before; nothing is sent then."""
        if self.forked:
            raise forked_error()
        block = sample.block
        sample.close_views()
        known = self._outputs.get(output)
        if known is None or not known.routes:
            sample.discard()
            return 0
        flags = (layout.FLAG_PROTECTED if protected else 0) | (layout.FLAG_FLUSH if flush else 0)
        layout.WORD.pack_into(block.view, layout.BLOCK_WALL, _time_ns())
        return self._deliver(known, sample.take_hold(), sample.total, flags)

    # --- memory -------------------------------------------------------------------------------
    def _allocate(self, total: int, known: _Output | None) -> Hold:
        """A hold on a block of ``total`` bytes, for which older messages are given up if need be.

        Raises PoolExhausted.
        """
        hold = Hold(self._returned)
        patience = 0
        while True:
            self._check()
            with self._lock:
                self._enter()
                block = self._take_or_evict(total, known)
                if block is not None:
                    hold.block = block
                    block.pinned = True
                self._inside = False
                if block is not None:
                    return hold
                full = self._queue_to_wait_for() if total <= self.pool.cap_bytes else None
            if full is None or (patience and _monotonic_ns() > patience):
                raise PoolExhausted(total, self.pool.cap_bytes, self.held_bytes())
            if full.waiting():
                patience = 0
            elif not patience:
                patience = _monotonic_ns() + _PATIENCE_NS
            if not self._wait_for_room(full.spec, full.ends.room_read, 0.005):
                raise PoolExhausted(total, self.pool.cap_bytes, self.held_bytes())

    def _take_or_evict(self, total: int, known: _Output | None) -> Block | None:
        if known is not None:
            for route in known.routes:
                route.collect(self.pool)
        try:
            if (block := self.pool.take_free(total)) is not None:
                return block
            # Before the pool grows, look at everything that may have been released.
            self._sweep_all()
            if (block := self.pool.take(total)) is not None:
                return block
            if total > self.pool.cap_bytes:
                return None
            while self._evict_oldest():
                if (block := self.pool.take(total)) is not None:
                    return block
        except MemoryError as error:
            raise PoolExhausted(total, self.pool.cap_bytes, self._holders(), str(error)) from error
        return None

    def _all_routes(self) -> list[Route]:
        routes = [route for known in self._outputs.values() for route in known.routes]
        return routes + self._lingering

    def _sweep_all(self) -> None:
        for known in self._outputs.values():
            for route in known.routes:
                if route.order or route.slotless:
                    route.sweep(self.pool)
        if self._lingering:
            self._sweep_lingering()

    def _sweep_lingering(self) -> None:
        # One that is not marked as removed is about to be, and has descriptors yet.
        self._lingering = [r for r in self._lingering if r.sweep(self.pool) or not r.removed]

    def _evict_oldest(self) -> bool:
        """Drop the oldest message of the drop_oldest queue that keeps the most bytes waiting."""
        candidates = [r for r in self._all_routes() if not r.backpressure and not r.removed]
        candidates.sort(key=Route.outstanding_bytes, reverse=True)
        for route in candidates:
            if route.evict():
                route.evicted_for_memory = True
                return True
        return False

    def _queue_to_wait_for(self) -> Route | None:
        """A backpressure queue whose consumer may give memory back.

        Rather one in which messages wait than one whose consumer merely holds some.
        """
        candidates = [r for r in self._all_routes() if r.backpressure and not r.removed]
        for route in candidates:
            if route.waiting():
                return route
        return next((route for route in candidates if route.outstanding_bytes()), None)

    def _trim(self, now: int) -> None:
        if self._trim_at:
            self._sweep_all()
            self.pool.trim()
        self._trim_at = now + _TRIM_EVERY_NS

    def trim(self) -> None:
        """Give memory back that the last seconds did not need; for a node that sends rarely."""
        if self.forked:
            raise forked_error()
        self._check()
        with self._lock:
            self._enter()
            self._trim(_monotonic_ns())
            self._inside = False

    def held_bytes(self) -> dict[str, int]:
        """Bytes outstanding by edge: queued, or held by the consumer."""
        self._check()
        with self._lock:
            self._enter()
            self._sweep_all()
            held = self._holders()
            self._inside = False
        return held

    def _holders(self) -> dict[str, int]:
        held = {r.spec.edge: r.outstanding_bytes() for r in self._all_routes()}
        return {edge: size for edge, size in held.items() if size}

    # --- the lock -----------------------------------------------------------------------------
    def _check(self, holds: Callable[[], bool] | None = None) -> None:
        """Before a lock is taken: it must not be this very thread that holds it."""
        if self.forked:
            raise forked_error()
        if (holds or self._holds)():
            raise RuntimeError(
                "a signal handler (or finalizer) sent while the send that it interrupted holds "
                "the sender; set a flag in the handler and send outside of it"
            )

    def _enter(self) -> None:
        """First thing under the lock: put right what an exception left half done."""
        if self._inside:
            self._restore()
        self._inside = True
        while self._returned:
            block = self._returned[0]
            block.pinned = False
            self._returned.popleft()
            if not block.refs and block not in block.home.free:
                self.pool.give(block)

    def _restore(self) -> None:
        routes = self._all_routes()
        for route in routes:
            route.restore()
        self.pool.rebuild(block for route in routes for block in route.outstanding())

    def close(self) -> None:
        """Close every route and the pool. What was sent stays readable."""
        if self.forked:
            return
        self._check()
        with self._lock:
            self._enter()
            for known in self._outputs.values():
                for route in known.routes:
                    route.close()
                known.routes = ()
            self.pool.close()
            self._inside = False
