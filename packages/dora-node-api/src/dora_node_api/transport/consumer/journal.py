"""Receiver that loses no message when its process is killed.

A link forwards messages to another machine and must be able to send them again until that machine
has acknowledged them. A message that it takes out of a `backpressure` queue is noted in a *journal*
on the status board until it is settled. The kernel writes a record straight from the pipe into the
journal, so after a kill at any instruction it is in one of the two.
"""

from __future__ import annotations

import sys
from contextlib import suppress

from dora_node_api.transport.consumer.delivery import Delivery
from dora_node_api.transport.consumer.receiving import OnFirstCopy, OpenSegment, Receiver
from dora_node_api.transport.shared import layout
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.errors import BrokenRecord
from dora_node_api.transport.shared.layout import CHECK, RECORD_SIZE, RECORD_WORDS
from dora_node_api.transport.shared.queue import QueueEnds
from dora_node_api.transport.shared.specs import QueueSpec

_NOTES = layout.JOURNAL_SIZE // RECORD_SIZE - 1


class HoldingReceiver(Receiver):
    """For queues whose spec has a `journal`. Keep each delivery until it is settled."""

    def __init__(
        self,
        spec: QueueSpec,
        ends: QueueEnds,
        board: Board,
        open_segment: OpenSegment,
        *,
        on_first_copy: OnFirstCopy | None = None,
    ) -> None:
        super().__init__(spec, ends, board, open_segment, on_first_copy=on_first_copy)
        # No copies: they would release the block that the next process must find. The caller holds
        # at most the spec's `hold_limit` and one message.
        self._max_held = self._hold_limit = sys.maxsize
        journal = board.journal(spec.journal)
        self._notes = journal[RECORD_SIZE:].cast("Q")
        taken = journal[:RECORD_SIZE]
        self._data_words = taken.cast("Q")
        self._data_into = [taken]
        # Records read by an earlier incarnation are not void: they are handed out again.
        self._fresh = set()
        self._fresh_data = False
        self._unsettled = self._words[layout.C_ACKNOWLEDGED] + 1
        self._assigned = board.assigned(spec.area, spec.ledger_slots)

    @property
    def settled(self) -> int:
        """Number of the last settled record, of this or an earlier process."""
        return int(self._words[layout.C_ACKNOWLEDGED])

    def take_over(self) -> list[Delivery]:
        """Return what a killed process had read and not settled, oldest first.

        Call it before the first `receive`.
        """
        notes = self._notes
        found: dict[int, int] = {}
        for at in range(0, _NOTES * RECORD_WORDS, RECORD_WORDS):
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
                notes[at] = 0
                continue
            try:
                again.append(super()._hand_out(record))
            except BrokenRecord:
                notes[at] = 0
        self._settled = last
        self._words[layout.C_SETTLED] = last
        in_hand = self._data_words
        if in_hand[0] <= last:
            in_hand[0] = 0
        elif in_hand[0] > self._words[layout.C_LAST_DATA]:  # killed before it was counted
            with suppress(BrokenRecord):
                self._count(in_hand, layout.C_LAST_DATA, layout.F_FLOOR_DATA)
        return again

    def _released(self, slot: int, generation: int) -> bool:
        """Whether a record was acknowledged although its note remains: its lease is gone.

        Its slot and memory may belong to another message by now, which a second release would free.
        """
        if slot >= self._max_slots:
            return False
        return self._assigned[slot] != generation or self._account.ledger[slot] == generation

    def _hand_out(self, record: memoryview) -> Delivery:
        sequence = record[0]
        at = sequence % _NOTES * RECORD_WORDS
        notes = self._notes
        if not notes[at]:
            notes[at + 1 : at + RECORD_WORDS] = record[1:]
            # Last: a note is valid once it has its number.
            notes[at] = sequence
        return super()._hand_out(record)

    def settle(self, sequence: int) -> None:
        """Note that records up to this number need not be sent again; drop their leases before."""
        notes = self._notes
        for number in range(max(self._unsettled, sequence - _NOTES + 1), sequence + 1):
            at = number % _NOTES * RECORD_WORDS
            if notes[at] == number:
                notes[at] = 0
        if sequence >= self._unsettled:
            self._unsettled = sequence + 1
            self._words[layout.C_ACKNOWLEDGED] = sequence
