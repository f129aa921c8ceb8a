"""The receiving end of one input: takes records in order and checks them.

A record is read into a buffer of the receiver and stays there until it is handed out; a buffer
whose first word is 0 is empty. The two pipes of an input share one sequence; the lower number goes
first.
"""

from __future__ import annotations

import contextlib
import os
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from dora_node_api.transport.consumer.delivery import Account, Delivery, MappedSegment
from dora_node_api.transport.shared import layout
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.errors import BrokenRecord
from dora_node_api.transport.shared.fork_guard import ForkAware, forked_error
from dora_node_api.transport.shared.layout import BLOCK_HEAD, RECORD_SIZE, RecordKind
from dora_node_api.transport.shared.memory import map_memory
from dora_node_api.transport.shared.queue import QueueEnds, bytes_waiting
from dora_node_api.transport.shared.specs import QueueSpec

if TYPE_CHECKING:
    from typing import NoReturn

OpenSegment = Callable[[int, int], tuple[int, int]]
"""Called as ``open_segment(incarnation, number)`` on a segment's first use; returns a descriptor,
which the receiver closes, and the size. Raises LookupError for an unknown segment."""

_DATA = RecordKind.DATA
_KINDS = {int(kind): kind for kind in RecordKind}
_P_SENT = layout.P_SENT
_HISTOGRAM = layout.HISTOGRAM
_LAST_BUCKET = _HISTOGRAM + layout.HISTOGRAM_BUCKETS - 1
_C_SETTLED = layout.C_SETTLED
_C_RECEIVED = layout.C_RECEIVED
_C_LAST_DATA = layout.C_LAST_DATA
_C_BYTES_RECEIVED = layout.C_BYTES_RECEIVED
_C_LAST_ARRIVAL_NS = layout.C_LAST_ARRIVAL_NS
_CHECK = layout.CHECK
_HEAD_SIZE = layout.BLOCK_HEAD_SIZE
_MAGIC = layout.BLOCK_MAGIC
_readv = os.readv
_unpack_record = layout.RECORD.unpack_from
_unpack_head = BLOCK_HEAD.unpack_from
_latency_bucket = layout.latency_bucket
_monotonic_ns = time.monotonic_ns
_weak = weakref.ref


class Receiver(ForkAware):
    """Receives the messages of one input. One thread at a time; any thread may drop arrays."""

    def __init__(
        self,
        spec: QueueSpec,
        ends: QueueEnds,
        board: Board,
        open_segment: OpenSegment,
        *,
        validate: bool = False,
        on_first_copy: Callable[[str], None] | None = None,
    ) -> None:
        """``validate`` checks the contents of arrays in full when they are decoded.

        ``on_first_copy`` is called once, with a sentence that names the setting to change, when the
        consumer holds so much that it gets copies.
        """
        super().__init__()
        self.spec = spec
        self._ends = ends
        self._board = board
        self._open_segment = open_segment
        self._validate = validate
        self._on_first_copy = on_first_copy
        board.own_consumer(spec)
        self._words = board.edge_words(spec.area)
        self._account = Account(board.ledger(spec.area, spec.ledger_slots))
        self._backpressure = spec.backpressure
        self._max_slots = spec.ledger_slots
        self._max_held = spec.ledger_slots // 2
        self._hold_limit = spec.hold_limit
        self._bound_bytes = spec.bound * RECORD_SIZE
        self._segments: dict[int, MappedSegment] = {}
        self._incarnation = -1
        self._copy_reported = False
        self._closed = False
        self._settled = self._words[_C_SETTLED]
        self._empty_at = -1
        # Pipes that this incarnation has not read yet, by their floor's word.
        self._fresh = {layout.F_FLOOR_DATA, layout.F_FLOOR_URGENT}
        self._fresh_data = True
        data = bytearray(RECORD_SIZE)
        self._data_words = memoryview(data).cast("Q")
        self._data_into: list[bytearray | memoryview] = [data]
        urgent = bytearray(RECORD_SIZE)
        self._urgent_words = memoryview(urgent).cast("Q")
        self._urgent_into: list[bytearray | memoryview] = [urgent]
        self._data_read = ends.data_read
        self._urgent_read = -1 if spec.backpressure else ends.urgent_read
        self._words[layout.X_CONSUMER_DEAD] = 0
        self._words[layout.C_CLOSED] = 0

    # --- looking ------------------------------------------------------------------------
    def ready(self) -> bool:
        """Whether `receive` is likely to return something; no system call. May be wrong for a
        moment in both directions, but not after a wake-up of `Waiter`."""
        sent = self._words[_P_SENT]
        return bool(sent != self._settled and sent != self._empty_at) or self.holds_record

    def woken(self) -> None:
        """Note that a pipe is readable: `ready` is True until `receive` finds the pipes empty."""
        self._empty_at = -1

    @property
    def holds_record(self) -> bool:
        """Whether a record was read from its pipe but not handed out."""
        return bool(self._data_words[0] or self._urgent_words[0])

    def pending(self) -> int:
        """Return the number of waiting messages, held ones included."""
        held = bool(self._data_words[0]) + bool(self._urgent_words[0])
        return held + self._ends.depth() if self._data_read >= 0 else 0

    def fds(self) -> tuple[int, ...]:
        """Return the descriptors that become readable when a record arrives."""
        if self._urgent_read < 0:
            return (self._data_read,)
        return (self._data_read, self._urgent_read)

    # --- taking -------------------------------------------------------------------------------
    def receive(self) -> Delivery | None:
        """Return the next message in order, or None if none waits. Never blocks.

        Raises BrokenRecord, after the record was dropped and counted, and NodeForked.
        """
        if self.forked:
            raise forked_error()
        words = self._words
        data = self._data_words
        urgent = self._urgent_words
        if data[0] and self._overtaken():
            self._discard(data)
        sent = words[_P_SENT]
        if not data[0]:
            # Everything up to `settled` was handed out, so there can be nothing else.
            if sent == self._settled and not urgent[0]:
                return None
            self._read_data()
        expected = self._settled + 1
        if data[0] != expected and self._urgent_read >= 0:
            if not urgent[0]:
                self._read_urgent()
            if urgent[0] and urgent[0] != expected and not data[0]:
                # A data record was written before the urgent one, but after the first read.
                self._read_data()
        if urgent[0] and (not data[0] or urgent[0] < data[0]):
            return self._hand_out(urgent)
        if not data[0]:
            self._empty_at = sent
            return None
        return self._hand_out(data)

    def count_unmatched(self, count: int) -> None:
        """Count messages that were handed out, but were in no sample of `Node.joined`."""
        self._words[layout.C_UNMATCHED] += count

    def _read_data(self) -> None:
        try:
            size = _readv(self._data_read, self._data_into)
        except BlockingIOError:
            return
        if size != RECORD_SIZE:
            self._resynchronise(self._data_read, self._data_words, size)
        record = self._data_words
        own = self._words
        sequence = record[0]
        if self._fresh_data or record[7] ^ sequence != _CHECK:
            self._count(record, _C_LAST_DATA, layout.F_FLOOR_DATA)
        else:
            own[_C_LAST_DATA] = sequence
            own[_C_RECEIVED] += 1
        if self._backpressure and own[layout.P_BLOCKED]:
            with contextlib.suppress(BlockingIOError):
                os.write(self._ends.room_write, b"\0")

    def _read_urgent(self) -> None:
        try:
            size = os.readv(self._urgent_read, self._urgent_into)
        except BlockingIOError:
            return
        if size != RECORD_SIZE:
            self._resynchronise(self._urgent_read, self._urgent_words, size)
        self._count(self._urgent_words, layout.C_LAST_URGENT, layout.F_FLOOR_URGENT)

    def _count(self, record: memoryview, last: int, floor: int) -> None:
        """Count a record that was read. Raises BrokenRecord if it is malformed.

        The first of a pipe raises the pipe's floor: records below it were read by an earlier
        incarnation of this consumer, which has ended.
        """
        sequence = record[0]
        own = self._words
        if record[7] ^ sequence != _CHECK:
            self._drop_broken(record, "not a record of this version")
        if floor in self._fresh:
            own[floor] = max(own[floor], sequence)
            self._fresh.discard(floor)
            self._fresh_data = layout.F_FLOOR_DATA in self._fresh
        own[last] = sequence
        own[_C_RECEIVED] += 1

    def _resynchronise(self, fd: int, record: memoryview, size: int) -> None:
        """Drop odd bytes of a foreign writer, so that later records are whole."""
        odd = bytes_waiting(fd) % RECORD_SIZE
        if odd:
            with contextlib.suppress(BlockingIOError):
                os.read(fd, odd)
        self._drop_broken(record, f"{size} bytes where a record has {RECORD_SIZE}")

    def _overtaken(self) -> bool:
        """Whether the held record would have been dropped if it had stayed in the pipe."""
        if self._backpressure:
            return False
        if self._data_words[0] < self._words[layout.P_FLUSHED]:
            return True
        return bytes_waiting(self._data_read) >= self._bound_bytes

    def _discard(self, record: memoryview) -> None:
        """Drop a record that was read but not handed out."""
        self._release(record)
        self._words[layout.C_DISCARDED] += 1
        record[0] = 0

    def _release(self, record: memoryview) -> None:
        """Give the block of a record back to its producer."""
        slot, generation, _, _ = layout.unpack_tags(record[layout.R_TAGS])
        self._account.leases.pop(slot, None)
        if slot < self._max_slots:
            self._account.ledger[slot] = generation

    def _drop_broken(self, record: memoryview, problem: str, *, release: bool = False) -> NoReturn:
        own = self._words
        sequence = record[0]
        if release:
            self._release(record)
            if sequence > self._settled:
                self._settled = sequence
                own[_C_SETTLED] = sequence
        own[layout.C_BROKEN] += 1
        record[0] = 0
        raise BrokenRecord(self.spec.edge, problem)

    # --- handing out --------------------------------------------------------------------------
    def _hand_out(self, record: memoryview) -> Delivery:
        sequence, word, offset, length, sent_ns, stamp, tags, _ = _unpack_record(record)
        if sequence <= self._settled:
            self._drop_broken(record, f"number {sequence} came after {self._settled}")
        if tags >> 24 & 0xFF:
            return self._hand_out_lifecycle(record, _KINDS.get(tags >> 24 & 0xFF))
        segment = self._segments.get(word)
        if segment is None:
            segment = self._open(record, word)
        if offset + length > segment.size or offset & 63 or length < _HEAD_SIZE:
            self._drop_broken(
                record,
                f"message {sequence} lies at {offset} to {offset + length} of a segment of "
                f"{segment.size} bytes",
                release=True,
            )
        head = _unpack_head(segment.memory, offset)
        if head[4] != stamp or head[0] != _MAGIC or head[6] > length:
            self._drop_broken(record, f"the block of message {sequence} was replaced", release=True)
        slot = tags & 0xFFFF
        account = self._account
        if slot >= self._max_slots or (
            account.held >= 2
            and (account.held >= self._max_held or account.held_bytes + length > self._hold_limit)
        ):
            copy = segment.memory[offset : offset + length]
            return self._hand_out_copy(record, head, copy)
        if account.held > account.check_at:
            account.release_lost()
        generation = tags >> 16 & 0xFF
        delivery = Delivery(
            self.spec, _DATA, sequence, sent_ns, length, tags >> 32, head,
            segment, offset, self._validate, slot, generation,
        )  # fmt: skip
        known = (_weak(delivery), generation, length)
        own = self._words
        now = _monotonic_ns()
        # Inlined `layout.latency_bucket`, because it is called for each message.
        units = now - sent_ns >> 6
        if units < 4:
            bucket = _HISTOGRAM + units if units > 0 else _HISTOGRAM
        else:
            exponent = units.bit_length() - 1
            bucket = _HISTOGRAM + ((exponent - 1) << 2 | (units >> exponent - 2) & 3)
            if bucket > _LAST_BUCKET:
                bucket = _LAST_BUCKET
        # C_SETTLED is stored last: until then the runner counts the record as held by the consumer.
        own[bucket] += 1
        own[_C_LAST_ARRIVAL_NS] = now
        own[_C_BYTES_RECEIVED] += length
        own[_C_SETTLED] = sequence
        self._settled = sequence
        record[0] = 0
        account.held += 1
        account.held_bytes += length
        account.leases[slot] = known
        delivery.account = account
        return delivery

    def _hand_out_copy(self, record: memoryview, head: tuple[int, ...], copy: bytes) -> Delivery:
        """Return a delivery with a private copy; the block is released at once."""
        sequence, _, _, length, sent_ns, _, tags, _ = record
        delivery = Delivery(
            self.spec, _DATA, sequence, sent_ns, length, tags >> 32, head,
            copy, 0, self._validate,
        )  # fmt: skip
        if not self._copy_reported and tags & 0xFFFF != layout.NO_SLOT:
            self._copy_reported = True
            self._report_copy()
        self._words[layout.C_COPIED] += 1
        self._settle(record)
        return delivery

    def _settle(self, record: memoryview) -> None:
        """Count a message that was copied, and release its block."""
        sequence, _, _, length, sent_ns, _, tags, _ = _unpack_record(record)
        slot = tags & 0xFFFF
        self._account.leases.pop(slot, None)
        now = _monotonic_ns()
        own = self._words
        own[_HISTOGRAM + _latency_bucket(now - sent_ns)] += 1
        own[_C_LAST_ARRIVAL_NS] = now
        own[_C_BYTES_RECEIVED] += length
        if slot < self._max_slots:
            self._account.ledger[slot] = tags >> 16 & 0xFF
        own[_C_SETTLED] = sequence
        self._settled = sequence
        record[0] = 0

    def _report_copy(self) -> None:
        if self._on_first_copy is not None:
            account = self._account
            self._on_first_copy(
                f"{self.spec.edge}: {account.held} arrays with {account.held_bytes:,} bytes of "
                f"this input are kept alive, its share is {self.spec.hold_limit:,} bytes; further "
                "ones are copied. Drop arrays sooner, or raise `shared_memory_pool_size` of "
                f"{self.spec.producer} (DORA_NODE_SHM_POOL_SIZE)",
            )

    def _hand_out_lifecycle(self, record: memoryview, kind: RecordKind | None) -> Delivery:
        """Return the delivery of a lifecycle record, which has no payload."""
        sequence = record[0]
        if kind is None:
            self._drop_broken(record, f"record {sequence} has an unknown kind", release=True)
        error = ""
        if kind is RecordKind.NODE_FAILED:
            size = min(self._words[layout.P_NOTICE_LENGTH], layout.NOTICE_SIZE)
            error = bytes(self._board.notice(self.spec.area)[:size]).decode("utf-8", "replace")
        delivery = Delivery(self.spec, kind, sequence, 0, 0, layout.FLAG_PROTECTED, error=error)
        self._words[_C_SETTLED] = sequence
        self._settled = sequence
        record[0] = 0
        return delivery

    def _open(self, record: memoryview, word: int) -> MappedSegment:
        """Map a segment on first use, and unmap segments of earlier incarnations."""
        incarnation, number = word >> 32, word & 0xFFFFFFFF
        shared = self._board.segments
        segment = shared.get((incarnation, number))
        if not isinstance(segment, MappedSegment):
            try:
                fd, size = self._open_segment(incarnation, number)
                try:
                    segment = MappedSegment(map_memory(fd, size, writable=False), size)
                finally:
                    os.close(fd)
            except (LookupError, OSError, ValueError) as error:
                self._drop_broken(
                    record,
                    f"segment {number} of incarnation {incarnation} cannot be opened: {error}",
                    release=True,
                )
            shared[incarnation, number] = segment
        if incarnation != self._incarnation:
            for old in [key for key in self._segments if key >> 32 != incarnation]:
                del self._segments[old]
                shared.pop((old >> 32, old & 0xFFFFFFFF), None)
            self._incarnation = incarnation
        self._segments[word] = segment
        return segment

    def close(self) -> None:
        """Close the descriptors. Arrays handed out stay valid; waiting messages are dropped."""
        if self.forked or self._closed:
            return
        self._data_read = self._urgent_read = -1
        self._ends.close()
        self._segments = {}
        self._words[layout.C_CLOSED] = 1
        self._closed = True
