"""Edges of a producer: write records, make room, and collect released blocks.

The ledger on the status board has a slot for each record: the producer assigns a generation to it,
the consumer releases it by storing the same generation. Stores precede the write of the record, so
that a producer which is killed in between leaves a slot assigned rather than a block unprotected.
"""

from __future__ import annotations

import array
import fcntl
import os
import termios
from collections import deque
from collections.abc import Iterator
from typing import Literal

from dora_node_api.transport.producer.pool import Pool, PoolBlock
from dora_node_api.transport.shared import layout
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.interruption import OwnedLock
from dora_node_api.transport.shared.layout import NO_SLOT, RECORD_SIZE
from dora_node_api.transport.shared.queue import QueueEnds, pipe_capacity, shortfall
from dora_node_api.transport.shared.specs import QueueSpec

Cause = Literal["full", "memory", "protected"]
"""Why a message is dropped; None: as intended, so it is not reported."""
_FULL = -1
"""Result in place of a pipe: no pipe has room."""
_REFUSED = -2
"""Result in place of a pipe: the message was dropped."""
_URGENT = 1 << 63  # mark in `sequences` of a record that went through the urgent pipe
_SEQUENCE = _URGENT - 1

_P_SENT = layout.P_SENT
_P_EVICTED = layout.P_EVICTED
_P_BYTES_SENT = layout.P_BYTES_SENT
_C_RECEIVED = layout.C_RECEIVED
_CHECK = layout.CHECK
_pack_record = layout.RECORD.pack_into
_write = os.write


class Route:
    """The sending end of one queue. Its Sender holds the lock for every call."""

    def __init__(self, spec: QueueSpec, ends: QueueEnds, board: Board, incarnation: int) -> None:
        self.spec = spec
        self.ends = ends
        self.removed = False
        board.own_producer(spec)
        self.words = board.edge_words(spec.area)
        self.ledger = board.ledger(spec.area, spec.ledger_slots)
        self.assigned = board.assigned(spec.area, spec.ledger_slots)
        self._generations = bytearray(self.assigned)
        """The last generation of each slot. A slot that was freed without its release gets another
        one: its consumer may release it later, as a link does that was just sending it again."""
        self.incarnation = incarnation
        self.backpressure = spec.backpressure
        self.bound_bytes = spec.bound * RECORD_SIZE
        self.bound = spec.bound
        self._data_write = ends.data_write
        self._room_to = 0
        """Last sequence number for which the pipe has room, as the counters have shown."""
        room = pipe_capacity(ends.urgent_write) if not self.backpressure else layout.LIFECYCLE_ROOM
        self.urgent_bytes = (room - min(layout.LIFECYCLE_ROOM, room // 4)) * RECORD_SIZE

        slots = range(spec.ledger_slots)
        # Slots whose last generation was not released belong to records of an earlier incarnation.
        self.inherited = {s for s in slots if self.assigned[s] != self.ledger[s]}
        self.start = self.words[_P_SENT]
        self.blocks: list[PoolBlock | None] = [None] * spec.ledger_slots
        self.sequences = [0] * spec.ledger_slots
        self.free_slots = [s for s in reversed(slots) if s not in self.inherited]
        self.order: deque[int] = deque()
        self.slotless: deque[tuple[int, PoolBlock]] = deque()
        self.sweep_at = 64
        self.first_drop = False
        """Whether the first drop of a message is still to be reported."""
        self._cause: Cause | None = None
        """Cause of the first drop."""
        # With `queue_size: 1` drops are intended: the reader gets only the newest message.
        self._if_full: Cause | None = None if spec.bound == 1 else "full"
        self.words[layout.P_BLOCKED] = 0

        # The record that is taken out of the pipe to make room.
        self._taken = bytearray(RECORD_SIZE)
        self._taken_words = memoryview(self._taken).cast("Q")
        self._taken_into = [self._taken]
        self._waiting = array.array("i", (0,))

    # --- sending ------------------------------------------------------------------------------
    def push(
        self,
        record: bytearray,
        word: int,
        block: PoolBlock,
        length: int,
        now: int,
        flags: int,
        again: bool = False,
    ) -> bool:
        """Write a record; False if the queue is full and nothing may be dropped.

        ``word`` identifies the block's segment, ``length`` bytes of the block are used, ``now`` is
        CLOCK_MONOTONIC. A protected message whose pipe is full is dropped and counted (True).
        With ``again`` a full pipe raises BlockingIOError.
        """
        own = self.words
        fd = self._data_write
        sequence = own[_P_SENT] + 1
        if flags or sequence > self._room_to:
            # The counters show at least what waits, and cost no system call. That of a consumer
            # that has overwritten it may be too high until the runner restores it.
            self._room_to = min(own[_C_RECEIVED] + own[_P_EVICTED], sequence - 1) + self.bound
            if flags or sequence > self._room_to:
                fd = self._pipe_with_room(flags)
                if fd < 0:
                    return fd == _REFUSED
        marked = self._marked(sequence, flags) if flags else sequence
        if not self.free_slots:
            self.sweep(None)
        if self.free_slots:
            slot = self.free_slots.pop()
            generation = self._generations[slot] % 255 + 1
            self.order.append(slot)
            self.blocks[slot] = block
            self.sequences[slot] = marked
        else:
            slot, generation = NO_SLOT, 0
            self.slotless.append((marked, block))
        _pack_record(
            record, 0, sequence, word, block.offset, length, now, block.stamp,
            slot | generation << 16 | flags << 32, sequence ^ _CHECK,
        )  # fmt: skip
        if generation:
            self.assigned[slot] = self._generations[slot] = generation
        block.refs += 1
        own[_P_SENT] = sequence
        own[_P_BYTES_SENT] += length
        try:
            _write(fd, record)
        except (BlockingIOError, BrokenPipeError):
            self._unsend(slot, block, length)
            if again:
                raise
            return self._push_again(record, word, block, length, now, flags)
        return True

    def _pipe_with_room(self, flags: int) -> int:
        """Make room for a message; return the pipe that takes it, else _FULL or _REFUSED."""
        if flags & layout.FLAG_PROTECTED and not self.backpressure:
            if self._bytes_in(self.ends.urgent_write) >= self.urgent_bytes:
                self.refuse("protected")
                return _REFUSED
            fd = self.ends.urgent_write
        else:
            fd = self.ends.data_write
            if self._bytes_in(self.ends.data_read) >= self.bound_bytes:
                if self.backpressure:
                    return _FULL
                flush = flags & layout.FLAG_FLUSH
                self._make_room(self.bound_bytes, None if flush else self._if_full)
        if flags & layout.FLAG_FLUSH and not self.backpressure:
            self._make_room(RECORD_SIZE, None)
            self.words[layout.P_FLUSHED] = self.words[_P_SENT] + 1
        return fd

    def _push_again(
        self, record: bytearray, word: int, block: PoolBlock, length: int, now: int, flags: int
    ) -> bool:
        """Push a record whose pipe was full: it holds less than the bound."""
        if self.backpressure:
            return False
        if flags & layout.FLAG_PROTECTED:
            self.refuse("protected")
            return True
        # Room for a record may need the eviction of a whole page. An empty pipe takes it.
        while True:
            more = self.evict(self._if_full)
            try:
                return self.push(record, word, block, length, now, flags, again=True)
            except (BlockingIOError, BrokenPipeError):
                if not more:
                    raise

    def _marked(self, sequence: int, flags: int) -> int:
        if flags & layout.FLAG_PROTECTED and not self.backpressure:
            return sequence | _URGENT
        return sequence

    def _unsend(self, slot: int, block: PoolBlock, length: int) -> None:
        """Undo the stores for a record that the pipe did not take."""
        own = self.words
        if slot != NO_SLOT:
            self.blocks[slot] = None
            self.assigned[slot] = self.ledger[slot]
            self.free_slots.append(slot)
        else:
            self.slotless.pop()
        own[_P_SENT] -= 1
        own[_P_BYTES_SENT] -= length
        block.refs -= 1

    def refuse(self, cause: Cause | None) -> None:
        """Count a message that is dropped because nothing older may be dropped for it."""
        own = self.words
        own[_P_SENT] += 1
        own[layout.P_REFUSED] += 1
        self._note_drop(cause)

    def _note_drop(self, cause: Cause | None) -> None:
        if self._cause is None and cause is not None:
            self._cause = cause
            self.first_drop = True

    def reason_for_drops(self, pool_cap: int) -> str:
        """Return why messages of this edge are dropped, and the setting to change."""
        spec = self.spec
        if self._cause == "memory":
            return (
                f"{spec.edge}: the {pool_cap:,} bytes of shared memory of {spec.producer} are "
                "full, so the oldest waiting messages are dropped from now on. To prevent this, "
                "raise its `shared_memory_pool_size` (DORA_NODE_SHM_POOL_SIZE)"
            )
        if self._cause == "protected":
            return (
                f"{spec.edge}: {self.urgent_bytes // layout.RECORD_SIZE} requests and goals wait, "
                "as many as fit, so further ones are dropped from now on. Read them sooner, send "
                "fewer at once, or set `queue_policy: backpressure`"
            )
        if (short := shortfall(spec, self.ends)) is not None:
            return f"{spec.edge}: the oldest messages are dropped from now on, as {short}"
        return (
            f"{spec.edge}: the input is full ({spec.bound} messages wait), so its oldest "
            "messages are dropped from now on. To prevent this, raise `queue_size` of the input or "
            "set its `queue_policy: backpressure`"
        )

    # --- making room --------------------------------------------------------------------------
    def _bytes_in(self, fd: int) -> int:
        waiting = self._waiting
        fcntl.ioctl(fd, termios.FIONREAD, waiting)
        return waiting[0]

    def _make_room(self, bound_bytes: int, cause: Cause | None) -> None:
        """Drop the oldest until fewer than ``bound_bytes`` wait."""
        while self._bytes_in(self.ends.data_read) >= bound_bytes and self.evict(cause):
            pass

    def evict(self, cause: Cause | None) -> bool:
        """Drop the oldest record of the data pipe; False if the pipe is empty."""
        try:
            os.readv(self.ends.data_read, self._taken_into)
        except BlockingIOError:
            return False
        taken = self._taken_words
        sequence = taken[layout.R_SEQUENCE]
        own = self.words
        own[_P_EVICTED] += 1
        self._note_drop(cause)
        if taken[layout.R_CHECK] ^ sequence == _CHECK:  # else it is foreign
            own[layout.P_EVICTED_SEQUENCE] = sequence
            self._release_evicted(taken, sequence)
        return True

    def _release_evicted(self, taken: memoryview, sequence: int) -> None:
        """Release the block of a record that no consumer has read."""
        slot, generation, _, _ = layout.unpack_tags(taken[layout.R_TAGS])
        if taken[layout.R_SEGMENT] >> 32 != self.incarnation:
            if slot in self.inherited:
                self.inherited.discard(slot)
                self.assigned[slot] = self.ledger[slot]
                self.free_slots.append(slot)
        elif slot == NO_SLOT:
            self._release_slotless(sequence)
        elif slot >= len(self.blocks):
            return  # a foreign record
        elif self.blocks[slot] is not None and self.assigned[slot] == generation:
            self.assigned[slot] = self.ledger[slot]
            self._release(slot)

    # --- releasing ----------------------------------------------------------------------------
    def collect(self, pool: Pool) -> None:
        """Take back blocks that the consumer has released in the order of sending."""
        order = self.order
        ledger = self.ledger
        assigned = self.assigned
        while order:
            slot = order[0]
            if ledger[slot] != assigned[slot]:
                break
            order.popleft()
            block = self.blocks[slot]
            if block is not None:
                self.blocks[slot] = None
                self.free_slots.append(slot)
                block.refs -= 1
                if not block.refs and not block.pinned:
                    block.home.free.append(block)  # inlined `Pool.give`
        if self.slotless:
            self._collect_slotless(pool)
        if len(order) >= self.sweep_at:
            # The consumer still holds an old array, whose slot is at the head.
            self.sweep(pool)

    def _release(self, slot: int) -> None:
        block = self.blocks[slot]
        self.blocks[slot] = None
        self.free_slots.append(slot)
        if block is not None:
            block.refs -= 1
            if not block.refs and not block.pinned:
                block.home.free.append(block)

    def _release_slotless(self, sequence: int) -> None:
        for index, (marked, block) in enumerate(self.slotless):
            if marked == sequence:
                del self.slotless[index]
                block.refs -= 1
                if not block.refs and not block.pinned:
                    block.home.free.append(block)
                return

    def _collect_slotless(self, pool: Pool) -> None:
        own = self.words
        kept: deque[tuple[int, PoolBlock]] = deque()
        for marked, block in self.slotless:
            settled = own[layout.C_SETTLED]
            if self._void(marked) or (marked & _SEQUENCE) <= settled <= own[_P_SENT]:
                block.refs -= 1
                if not block.refs and not block.pinned:
                    pool.give(block)
            else:
                kept.append((marked, block))
        self.slotless = kept

    def _void(self, marked: int) -> bool:
        """Whether no consumer will release a record: it was read by one that has ended since.

        Or it was settled by a link that was killed before it released it. A living link that is
        just sending it again does not need it: the other machine has it.
        """
        own = self.words
        floor = own[layout.F_FLOOR_URGENT if marked & _URGENT else layout.F_FLOOR_DATA]
        sequence = marked & _SEQUENCE
        sent = own[_P_SENT]  # a consumer that has overwritten its words must not free what waits
        if sequence < floor <= sent + 1:
            return True
        if self.spec.journal and sequence <= own[layout.C_ACKNOWLEDGED] <= sent:
            return True
        if not self.removed:
            return False
        return bool(
            own[layout.X_CONSUMER_DEAD]
            or (own[layout.C_CLOSED] and sequence > own[layout.C_SETTLED])
        )

    def sweep(self, pool: Pool | None) -> int:
        """Take back every released block, in any order; return how many are outstanding."""
        outstanding: list[tuple[int, int]] = []
        for slot in set(self.order):
            if self.blocks[slot] is None:
                continue
            if self.ledger[slot] == self.assigned[slot]:
                self._release(slot)
            elif self._void(self.sequences[slot]):
                self.assigned[slot] = self.ledger[slot]
                self._release(slot)
            else:
                outstanding.append((self.sequences[slot] & _SEQUENCE, slot))
        outstanding.sort()
        self.order = deque(slot for _, slot in outstanding)
        for slot in list(self.inherited):
            if self.ledger[slot] == self.assigned[slot] or (
                self._void(self.start) and (self.backpressure or self._void(self.start | _URGENT))
            ):
                self.assigned[slot] = self.ledger[slot]
                self.inherited.discard(slot)
                self.free_slots.append(slot)
        if self.slotless and pool is not None:
            self._collect_slotless(pool)
        self.sweep_at = max(64, 2 * len(outstanding))
        return len(outstanding) + len(self.slotless)

    def outstanding_bytes(self) -> int:
        """Return the bytes of the blocks that queued records or the consumer keep."""
        held = sum(block.size for block in self.blocks if block is not None)
        return held + sum(block.size for _, block in self.slotless)

    def waiting(self) -> bool:
        """Whether anything is queued."""
        return not self.removed and self._bytes_in(self.ends.data_read) > 0

    # --- waiting for room ---------------------------------------------------------------------
    def set_blocked(self, blocked: bool) -> None:
        self.words[layout.P_BLOCKED] = 1 if blocked else 0

    def clear_room(self) -> None:
        """Clear old rings of the doorbell; look at the pipe after this."""
        if self.words[layout.P_BLOCKED]:
            try:
                os.read(self.ends.room_read, 4096)
            except BlockingIOError:
                return

    def close(self) -> None:
        self.removed = True
        self._data_write = -1
        self.ends.close()


class OutputRoutes:
    """The routes of one output, and the lock that keeps sends that wait in order."""

    __slots__ = ("backpressure", "order", "routes", "waiting")

    def __init__(self) -> None:
        self.routes: tuple[Route, ...] = ()
        """drop_oldest queues first: they never make the others wait."""
        self.backpressure = False
        self.order = OwnedLock()
        self.waiting: set[int] = set()
        """Threads that wait for room, or for `order`: other sends must not overtake them."""

    def set_routes(self, routes: tuple[Route, ...]) -> None:
        """Replace the routes."""
        self.routes = tuple(sorted(routes, key=lambda route: route.backpressure))
        self.backpressure = any(route.backpressure for route in routes)


class RouteTable:
    """All routes of a sender, by output; and the removed ones whose consumers still hold blocks."""

    def __init__(self) -> None:
        self.outputs: dict[str, OutputRoutes] = {}
        self._lingering: list[Route] = []

    def __iter__(self) -> Iterator[Route]:
        for output in self.outputs.values():
            yield from output.routes
        yield from self._lingering

    def has(self, queue: int) -> bool:
        """Whether a queue has a route."""
        return any(route.spec.queue == queue for route in self)

    def of(self, output: str) -> tuple[Route, ...]:
        """Return the routes of an output."""
        known = self.outputs.get(output)
        return () if known is None else known.routes

    def add(self, output: str, route: Route) -> None:
        """Send an output to a further queue."""
        known = self.outputs.setdefault(output, OutputRoutes())
        known.set_routes((*known.routes, route))

    def remove(self, queue: int, pool: Pool) -> None:
        """Close the route of a queue. Blocks that its consumer still holds stay until released."""
        for output in self.outputs.values():
            for route in output.routes:
                if route.spec.queue == queue:
                    while route.evict(None):
                        pass
                    route.close()
                    self._lingering.append(route)
                    output.set_routes(tuple(r for r in output.routes if r is not route))
        self._sweep_lingering(pool)

    def sweep(self, pool: Pool) -> None:
        """Take back every released block, in any order."""
        for output in self.outputs.values():
            for route in output.routes:
                if route.order or route.slotless:
                    route.sweep(pool)
        if self._lingering:
            self._sweep_lingering(pool)

    def _sweep_lingering(self, pool: Pool) -> None:
        self._lingering = [route for route in self._lingering if route.sweep(pool)]

    def evict_oldest(self) -> bool:
        """Drop the oldest message of the drop_oldest queue that keeps the most bytes waiting."""
        candidates = [route for route in self if not route.backpressure and not route.removed]
        candidates.sort(key=Route.outstanding_bytes, reverse=True)
        return any(route.evict("memory") for route in candidates)

    def queue_to_wait_for(self) -> Route | None:
        """Return a backpressure queue whose consumer may release memory, or None.

        Queues with waiting messages precede those whose consumers only hold some.
        """
        candidates = [route for route in self if route.backpressure and not route.removed]
        for route in candidates:
            if route.waiting():
                return route
        return next((route for route in candidates if route.outstanding_bytes()), None)

    def held_bytes(self) -> dict[str, int]:
        """Return the bytes that are queued or held by the consumer, by edge."""
        held = {route.spec.edge: route.outstanding_bytes() for route in self}
        return {edge: size for edge, size in held.items() if size}

    def close(self) -> None:
        """Close every route."""
        for output in self.outputs.values():
            for route in output.routes:
                route.close()
            output.set_routes(())
