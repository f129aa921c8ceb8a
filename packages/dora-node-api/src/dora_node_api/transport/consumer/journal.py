"""Receiver of a link, which loses no message that its sender relies on when its process is killed.

A link forwards messages to another machine and must be able to send them again until that machine
has acknowledged them. Messages of a `backpressure` queue, and the protected ones and lifecycle
records of a `drop_oldest` queue, are noted in a *journal* on the status board until they are
settled. The kernel writes a record straight from the pipe into the journal, so after a kill at any
instruction it is in one of the two. Other messages of a `drop_oldest` queue are images.
"""

from __future__ import annotations

import sys
from collections import deque
from contextlib import suppress

from dora_node_api.transport.consumer.delivery import Delivery
from dora_node_api.transport.consumer.images import ImageDelivery, ImageReceiver
from dora_node_api.transport.consumer.receiving import OpenSegment, Receiver
from dora_node_api.transport.shared import layout
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.errors import BrokenRecord
from dora_node_api.transport.shared.layout import CHECK, RECORD_SIZE, RECORD_WORDS
from dora_node_api.transport.shared.queue import QueueEnds
from dora_node_api.transport.shared.specs import QueueSpec


class LinkReceiver(ImageReceiver):
    """For queues whose spec has a `journal`. Keep each `Delivery` until it is settled."""

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
        """Return what a killed process had noted and not settled, oldest first.

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
                again.append(Receiver._hand_out(self, record))
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
            return super()._hand_out(record)
        sequence, noted = record[0], self._noted
        if self._places and not (noted and noted[-1][0] == sequence):
            at = self._places.pop()
            self._notes[at + 1 : at + RECORD_WORDS] = record[1:]
            # Last: a note is valid once it has its number.
            self._notes[at] = sequence
            noted.append((sequence, at))
        return Receiver._hand_out(self, record)

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
