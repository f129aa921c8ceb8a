"""Receiver of a link, which loses no message that its sender relies on when its process is killed.

A link forwards messages to another machine and must be able to send them again until that machine
has acknowledged them. Messages of a `backpressure` queue, and the protected ones and lifecycle
records of a `drop_oldest` queue, are noted in a *journal* on the status board until they are
settled. The kernel writes a record straight from the pipe into the journal, so after a kill at any
instruction it is in one of the two. Other small messages of a `drop_oldest` queue are handed out as
images: copies that are not decoded, without a lease.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from contextlib import suppress

from dora_node_api.transport.consumer.delivery import Delivery
from dora_node_api.transport.consumer.receiving import OpenSegment, Receiver
from dora_node_api.transport.shared import layout
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.errors import BrokenRecord
from dora_node_api.transport.shared.layout import (
    BLOCK_HEAD,
    BLOCK_HEAD_SIZE,
    BLOCK_MAGIC,
    CHECK,
    RECORD_SIZE,
    RECORD_WORDS,
    RecordKind,
)
from dora_node_api.transport.shared.queue import QueueEnds
from dora_node_api.transport.shared.specs import QueueSpec

MAX_IMAGE = 64 * 1024 + 8192
"""Bytes of a block up to which its message is handed out as an image."""
_unpack_record = layout.RECORD.unpack_from
_unpack_head = BLOCK_HEAD.unpack_from
_readv = os.readv
_P_SENT = layout.P_SENT
_C_RECEIVED = layout.C_RECEIVED
_C_LAST_DATA = layout.C_LAST_DATA


TakenImage = tuple[int, int, int, bytes, int]
"""Sequence, sent time, flags and image of a message, and the bytes of its block."""


class ImageDelivery:
    """A small message: its image and the fields of its record. Its block is released already."""

    __slots__ = ("flags", "image", "nbytes", "sent_ns", "sequence")

    kind = RecordKind.DATA

    def __init__(self, sequence: int, sent_ns: int, flags: int, image: bytes, nbytes: int) -> None:
        self.sequence = sequence
        self.sent_ns = sent_ns
        self.flags = flags
        """FLAG_PROTECTED and FLAG_FLUSH."""
        self.image = image
        self.nbytes = nbytes
        """Bytes of the block."""


class LinkReceiver(Receiver):
    """Receiver of queues whose spec has a `journal`. Keep each `Delivery` until it is settled."""

    def __init__(
        self,
        spec: QueueSpec,
        ends: QueueEnds,
        board: Board,
        open_segment: OpenSegment,
    ) -> None:
        super().__init__(spec, ends, board, open_segment)
        # No copies: they would release the block that the next process must find. The caller holds
        # at most the spec's `hold_limit` and one message.
        self._max_held = self._hold_limit = sys.maxsize
        journal = board.journal(spec)
        self._notes = journal[RECORD_SIZE:].cast("Q")
        self._noted: deque[tuple[int, int]] = deque()
        """Sequence number and place of each note, oldest first. `settle` is for any thread."""
        self._places = list(range(0, len(self._notes), RECORD_WORDS))
        taken = journal[:RECORD_SIZE]
        # Records read by an earlier incarnation are not void: they are handed out again.
        if spec.backpressure:
            self._journaled = self._data_words = taken.cast("Q")
            self._data_into = [taken]
            self._last, self._floor = layout.C_LAST_DATA, layout.F_FLOOR_DATA
        else:
            self._journaled = self._urgent_words = taken.cast("Q")
            self._urgent_into = [taken]
            self._last, self._floor = layout.C_LAST_URGENT, layout.F_FLOOR_URGENT
        self._fresh.discard(self._floor)
        self._fresh_data = layout.F_FLOOR_DATA in self._fresh
        self._unsettled = self._words[layout.C_ACKNOWLEDGED] + 1
        self._assigned = board.assigned(spec.area, spec.ledger_slots)

    @property
    def settled(self) -> int:
        """Number of the last settled record, of this or an earlier process."""
        return int(self._words[layout.C_ACKNOWLEDGED])

    @property
    def last_image(self) -> int:
        """Number of the last record that was read and not noted; a killed process loses these."""
        return 0 if self.spec.backpressure else int(self._words[layout.C_LAST_DATA])

    def take_over(self) -> list[Delivery]:
        """Return the records that a killed process had noted and not settled, oldest first.

        Call it before the first `receive`.
        """
        notes = self._notes
        found: dict[int, int] = {}
        for at in self._places:
            sequence = notes[at]
            if sequence >= self._unsettled and notes[at + 7] ^ sequence == CHECK:
                found[sequence] = at
        again: list[Delivery] = []
        record = memoryview(bytearray(RECORD_SIZE)).cast("Q")
        last = max([self._settled, *found])
        for sequence, at in sorted(found.items()):
            record[:] = notes[at : at + RECORD_WORDS]
            slot, generation, _, _ = layout.unpack_tags(record[layout.R_TAGS])
            self._settled = sequence - 1
            if self._released(slot, generation):
                continue
            with suppress(BrokenRecord):
                again.append(super()._hand_out(record))
                self._noted.append((sequence, at))
        self._settled = last
        self._words[layout.C_SETTLED] = last
        taken = {at for _, at in self._noted}
        self._places = [at for at in self._places if at not in taken]
        for at in self._places:
            notes[at] = 0
        in_hand = self._journaled
        if in_hand[0] <= last:
            in_hand[0] = 0
        elif in_hand[0] > self._words[self._last]:  # killed before it was counted
            with suppress(BrokenRecord):
                self._count(in_hand, self._last, self._floor)
        return again

    def _released(self, slot: int, generation: int) -> bool:
        """Whether a record was acknowledged although its note remains: its lease is gone.

        Its slot and memory may belong to another message by now, which a second release would free.
        """
        if slot >= self._max_slots:
            return False
        return self._assigned[slot] != generation or self._account.ledger[slot] == generation

    def _hand_out(self, record: memoryview) -> Delivery | ImageDelivery:  # type: ignore[override]
        if record is not self._journaled:
            taken = self._read_image(record)
            if taken is None:
                return super()._hand_out(record)
            self._settle(record)
            return ImageDelivery(*taken)
        sequence, noted = record[0], self._noted
        if self._places and not (noted and noted[-1][0] == sequence):
            at = self._places.pop()
            self._notes[at + 1 : at + RECORD_WORDS] = record[1:]
            # Last: a note is valid once it has its number.
            self._notes[at] = sequence
            noted.append((sequence, at))
        return super()._hand_out(record)

    def settle(self, sequence: int) -> None:
        """Note that records up to this number need not be sent again; drop their leases before."""
        noted = self._noted
        while noted and noted[0][0] <= sequence:
            at = noted.popleft()[1]
            self._notes[at] = 0
            self._places.append(at)
        if sequence >= self._unsettled:
            self._unsettled = sequence + 1
            self._words[layout.C_ACKNOWLEDGED] = sequence

    # --- images -----------------------------------------------------------------------------------

    def read_only(self) -> TakenImage | None:
        """Read the only message that waits, if it is small and ordinary; then call `settle_only`.

        None otherwise: then call `receive`, which may find the record read already. Raises
        BrokenRecord.
        """
        data = self._data_words
        expected = self._settled + 1
        if (
            self._words[_P_SENT] != expected
            or data[0]
            or self._urgent_words[0]
            or self._backpressure
            or self.forked
        ):
            return None
        # Inlined `_read_data`, because it is called for each message.
        try:
            size = _readv(self._data_read, self._data_into)
        except BlockingIOError:
            return None
        if size != RECORD_SIZE:
            self._resynchronise(self._data_read, data, size)
        sequence = data[0]
        if self._fresh_data or data[7] ^ sequence != CHECK:
            self._count(data, _C_LAST_DATA, layout.F_FLOOR_DATA)
        else:
            words = self._words
            words[_C_LAST_DATA] = sequence
            words[_C_RECEIVED] += 1
        return self._read_image(data) if sequence == expected else None

    def settle_only(self) -> None:
        """Release the block of the message that `read_only` returned, and count the message."""
        self._settle(self._data_words)

    def _read_image(self, record: memoryview) -> TakenImage | None:
        """Return a copy of a small message; None for any other record and for a malformed one."""
        sequence, word, offset, length, sent_ns, stamp, tags, _ = _unpack_record(record)
        segment = self._segments.get(word)
        if (
            length > MAX_IMAGE
            or length < BLOCK_HEAD_SIZE
            or segment is None
            or tags >> 24 & 0xFF
            or sequence <= self._settled
            or offset + length > segment.size
        ):
            return None
        view = segment.view
        magic, described, metadata, _, found, _, data_at, _, _ = _unpack_head(view, offset)
        if found != stamp or magic != BLOCK_MAGIC or data_at > length:
            return None
        head_end = offset + BLOCK_HEAD_SIZE + described + metadata
        image = b"".join((view[offset:head_end], view[offset + data_at : offset + length]))
        return sequence, sent_ns, tags >> 32, image, length
