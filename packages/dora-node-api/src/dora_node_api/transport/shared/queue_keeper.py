"""The runner's side of a queue: lifecycle records, ended processes, counters."""

from __future__ import annotations

import array
import contextlib
import os
from collections import deque
from collections.abc import Sequence
from typing import Literal

from dora_node_api.frozen import FrozenRecord
from dora_node_api.transport.shared import layout
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.layout import RecordKind
from dora_node_api.transport.shared.queue import QueueEnds, bytes_waiting
from dora_node_api.transport.shared.specs import QueueSpec


class EdgeStatistics(FrozenRecord):
    """Counters of one edge since it was made. `sent == received + dropped + queued`."""

    sent: int
    received: int
    """Handed out to the consumer."""
    dropped: int
    queued: int
    bytes_sent: int
    bytes_received: int
    broken: int
    unmatched: int
    """Received messages that were in no sample of `Node.joined`."""
    copied: int
    blocked: bool
    """Whether the producer waits for room."""
    last_arrival_ns: int
    """CLOCK_MONOTONIC of the last received message; 0 before the first."""
    latency: tuple[tuple[int, int], ...]
    """Upper bound in nanoseconds and count of each bucket (of 25 %) that is not empty."""


def _read_counters(words: memoryview, ends: QueueEnds) -> tuple[list[int], int | None]:
    """Return the words and the messages that neither wait nor are counted; None: both change."""
    watched = (layout.P_SENT, layout.C_RECEIVED, layout.P_EVICTED)
    for _ in range(20):
        before = [words[word] for word in watched]
        depth = ends.depth()
        counters = words.tolist()
        if before == [counters[word] for word in watched]:
            counted = layout.P_EVICTED, layout.P_REFUSED, layout.C_RECEIVED
            rest = counters[layout.P_SENT] - sum(counters[word] for word in counted)
            return counters, max(rest - depth, 0)
    return counters, None


def _handed_out(words: Sequence[int]) -> int:
    """Return how many records a consumer has handed out or discarded."""
    buckets = words[layout.HISTOGRAM : layout.HISTOGRAM + layout.HISTOGRAM_BUCKETS]
    return sum(buckets) + words[layout.C_DISCARDED]


def write_lifecycle(
    board: Board, spec: QueueSpec, ends: QueueEnds, kind: RecordKind, error: str = ""
) -> bool:
    """Write a lifecycle record, and the error of NODE_FAILED; False if the pipe has no room."""
    words = board.edge_words(spec.area)
    if kind is RecordKind.NODE_FAILED:
        text = error.encode("utf-8", "replace")[: layout.NOTICE_SIZE]
        board.notice(spec.area)[: len(text)] = text
        words[layout.P_NOTICE_LENGTH] = len(text)
    sequence = words[layout.P_SENT] + 1
    tags = layout.pack_tags(layout.NO_SLOT, 0, kind, layout.FLAG_PROTECTED)
    record = layout.RECORD.pack(sequence, 0, 0, 0, 0, 0, tags, sequence ^ layout.CHECK)
    words[layout.P_SENT] = sequence
    try:
        os.write(ends.data_write if spec.backpressure else ends.urgent_write, record)
    except BlockingIOError:
        words[layout.P_SENT] = sequence - 1
        return False
    return True


_GIVEN = (layout.P_EVICTED, layout.P_REFUSED, layout.P_EVICTED_SEQUENCE)
_TAKEN = (
    *(layout.C_RECEIVED, layout.C_SETTLED, layout.C_ACKNOWLEDGED),
    *(layout.F_FLOOR_DATA, layout.F_FLOOR_URGENT),
)
"""Words that never decrease and never exceed P_SENT + 1."""
_COPIED = (layout.C_LAST_DATA, layout.C_LAST_URGENT)
"""Words with sequence numbers that the consumer copies from records."""
_OF_PRODUCER = (layout.P_SENT, *_GIVEN)
_OF_CONSUMER = (*_TAKEN, *_COPIED)
_MAX_COUNT = 1 << 48
"""Bound that no count of messages reaches."""
_MAX_UNSEEN = 1 << 20
"""Bound of the messages that a producer sends between two checks."""
_MAX_IN_HAND, _MAX_IN_JOURNAL = 256, 4096
"""Most records that a consumer has taken and not handed out between two checks; for a link also
those that it hands out twice."""


class Contradiction(FrozenRecord):
    """Words of an edge that cannot be true."""

    by: Literal["producer", "consumer"] | None
    """End that has written the words; None: one of the two."""
    text: str


class QueueKeeper:
    """The runner's side of a queue: the only writer of lifecycle records.

    Announce only after the producer was reaped (or has never run) and before it is restarted: both
    write the same sequence. Records that do not fit into a full pipe are kept; call `retry` from
    time to time while `needs_retry`.
    """

    def __init__(self, board: Board, spec: QueueSpec, ends: QueueEnds) -> None:
        self.board = board
        self.spec = spec
        self.ends = ends
        self._words = board.edge_words(spec.area)
        self._pending: deque[tuple[RecordKind, str]] = deque()
        self._good = self._words.tolist()
        """The words at the last check."""
        self._lost = 0
        """Most messages of reaped ends that neither wait nor are counted."""

    @property
    def needs_retry(self) -> bool:
        return bool(self._pending)

    def retry(self) -> None:
        """Write the records that did not fit before."""
        while self._pending and self._write(*self._pending[0]):
            self._pending.popleft()

    def announce_closed(self) -> None:
        """Announce the end of the input."""
        self._announce(RecordKind.CLOSED)

    def announce_restarted(self) -> None:
        """Announce that the producer is about to be restarted.

        Not written if the pipe is full, after tens of restarts without a read: the record must not
        be written once the producer runs again.
        """
        self.retry()
        if not self._pending:
            self._write(RecordKind.NODE_RESTARTED)

    def announce_failed(self, error: str) -> None:
        """Announce that the producer failed permanently, before `announce_closed`.

        ``error`` is cut at 2 KB.
        """
        self._announce(RecordKind.NODE_FAILED, error)

    def _announce(self, kind: RecordKind, error: str = "") -> None:
        self._pending.append((kind, error))
        self.retry()

    def _write(self, kind: RecordKind, error: str = "") -> bool:
        return write_lifecycle(self.board, self.spec, self.ends, kind, error)

    def check(self) -> Contradiction | None:
        """Return which words are invalid, and which end has written them; None if all are valid.

        No end can write the other's words, so each end is checked by its own words only.
        """
        words, good = self._words, self._good
        taken = [words[word] for word in _TAKEN]
        given = [(words[word], good[word]) for word in _GIVEN]
        # Last: the others never overtake it. A record that its pipe has not taken lowers it by one.
        sent, before = words[layout.P_SENT], good[layout.P_SENT]
        if not before <= sent + 1 <= _MAX_COUNT:
            return Contradiction("producer", f"{sent} messages sent after {before}")
        if any(not last <= now <= sent for now, last in given) or words[layout.P_BLOCKED] > 1:
            return Contradiction("producer", f"more messages dropped than the {sent} sent")
        if words[layout.P_FLUSHED] > sent + 2:
            return Contradiction("producer", f"{words[layout.P_FLUSHED]} of {sent} flushed")
        text = f"{taken[0]} messages received of {sent}"
        if self._consumer_is_wrong(taken):
            return Contradiction("consumer", f"its counters contradict each other, {text}")
        # The consumer counts in several words, which agree: it has received these messages.
        if taken[0] > sent + 1 + self._slack:
            return Contradiction("producer", text)
        # Numbers that the consumer copies come from records, which the producer has written.
        if any(now > sent + 1 for now in taken) or any(words[one] >= _MAX_COUNT for one in _COPIED):
            return Contradiction(None, f"{text}, the last one with number {max(taken[1:])}")
        self._good = words.tolist()
        return None

    @property
    def _slack(self) -> int:
        return _MAX_IN_JOURNAL if self.spec.journal else _MAX_IN_HAND

    def _consumer_is_wrong(self, taken: Sequence[int]) -> bool:
        """Return whether words of the consumer contradict each other; ``taken``: those first."""
        words, good = self._words, self._good
        last = max(words[layout.C_LAST_DATA], words[layout.C_LAST_URGENT])
        broken = words[layout.C_BROKEN] - good[layout.C_BROKEN]
        if any(now < good[word] for now, word in zip(taken, _TAKEN, strict=True)) or broken < 0:
            return True
        if words[layout.C_CLOSED] > 1 or words[layout.X_CONSUMER_DEAD] > 1:
            return True
        for now, word in zip(taken[1:3], _TAKEN[1:3], strict=True):
            # It was read, and stored, before `last`. Broken records may be older than those before.
            if now > max(last, good[word]) and not broken:
                return True
        received = taken[0] - good[layout.C_RECEIVED]
        handed_out = _handed_out(words) - _handed_out(good)
        return not -self._slack <= received - handed_out <= broken + self._slack

    def _restore(self, *, producer: bool) -> None:
        """Repair contradictory words of a reaped end, so that the next process can continue.

        Numbers of messages skip those that may have been given out since the last check.
        """
        words, good, depth = self._words, self._good, self.ends.depth()
        found = self.check()
        own = _OF_PRODUCER if producer else _OF_CONSUMER
        # `check` names one end, also if both are wrong.
        wrong = any(not good[word] <= words[word] + 1 <= _MAX_COUNT for word in own)
        other = "consumer" if producer else "producer"
        if not wrong and (found is None or found.by == other):
            return
        if producer:
            taken = (words[word] for word in _TAKEN)
            last = max(good[layout.P_SENT], *(word for word in taken if word < _MAX_COUNT), 0)
            gap = 0 if self.spec.backpressure else _MAX_UNSEEN
            words[layout.P_SENT :] = array.array("Q", good[layout.P_SENT :])
            words[layout.P_SENT] = sent = last + depth + gap
            left = sent - good[layout.P_REFUSED] - words[layout.C_RECEIVED] - depth
            words[layout.P_EVICTED] = max(left, 0)
            good[layout.P_SENT :] = words[layout.P_SENT :].tolist()
        else:
            words[: layout.P_SENT] = array.array("Q", good[: layout.P_SENT])
            lost = words[layout.P_EVICTED] + words[layout.P_REFUSED] + depth
            words[layout.C_RECEIVED] = max(words[layout.P_SENT] - lost, 0)
            good[: layout.P_SENT] = words[: layout.P_SENT].tolist()

    def _note_lost(self) -> None:
        """Count what a reaped end has lost: a message in its hands, which nothing counts later.

        The other end may be about to write or to count one of them; `statistics` corrects this.
        """
        _, uncounted = _read_counters(self._words, self.ends)
        if uncounted is not None:
            self._lost = uncounted

    def producer_died(self) -> None:
        """Account for a reaped producer; call it before anything is announced."""
        self._restore(producer=True)
        self._note_lost()

    def consumer_died(self) -> None:
        """Free what a reaped consumer held, and wake a waiting producer.

        The next process takes over what is in its journal.
        """
        self._restore(producer=False)
        words = self._words
        if self.spec.journal and self.spec.backpressure:
            self.ring_room()
            return
        self._note_lost()
        words[layout.F_FLOOR_DATA] = max(words[layout.F_FLOOR_DATA], words[layout.C_LAST_DATA] + 1)
        if self.spec.journal:
            return
        words[layout.F_FLOOR_URGENT] = max(
            words[layout.F_FLOOR_URGENT], words[layout.C_LAST_URGENT] + 1
        )
        words[layout.X_CONSUMER_DEAD] = 1
        self.ring_room()

    def ring_room(self) -> None:
        """Wake a producer that waits for room."""
        if self.ends.room_write >= 0:
            with contextlib.suppress(BlockingIOError):
                os.write(self.ends.room_write, b"\0")

    def sent_sequence(self) -> int:
        """Return the last assigned sequence number; read it when a producer was reaped."""
        return int(self._words[layout.P_SENT])

    def may_reference(self, sequence: int) -> bool:
        """Whether a record up to ``sequence`` may still be queued or in the consumer's hands.

        The segments of an ended producer may be closed once this is False for every queue that it
        sent to, with the `sent_sequence` read after it was reaped.
        """
        words = self._words
        settled = layout.C_ACKNOWLEDGED if self.spec.journal else layout.C_SETTLED
        if words[settled] >= sequence:
            return False
        depth = self.ends.depth()
        # Between its read and its stores a consumer may wait for the GIL, or be killed: a record
        # that has left the pipes and is not counted is in its hands. These reads are in the reverse
        # order of its stores.
        left = words[layout.P_SENT] - words[layout.P_EVICTED] - words[layout.P_REFUSED]
        uncounted = left - words[layout.C_RECEIVED] - depth
        taken = max(words[layout.C_LAST_DATA], words[layout.C_LAST_URGENT])
        in_hand = uncounted > 0 or taken > words[settled]
        if in_hand and not words[layout.X_CONSUMER_DEAD]:
            return True
        if not depth or self.spec.journal:
            return depth > 0
        evicted = words[layout.P_EVICTED_SEQUENCE] >= sequence
        return not evicted or bytes_waiting(self.ends.urgent_read) > 0

    def statistics(self) -> EdgeStatistics:
        """Return the edge's counters at this moment."""
        counters, uncounted = _read_counters(self._words, self.ends)
        broken, malformed = counters[layout.C_BROKEN], 0
        if uncounted is not None:
            self._lost = min(self._lost, uncounted)
            # The consumer does not count these as received, since they may be foreign.
            malformed = min(uncounted - self._lost, broken)
        sent = counters[layout.P_SENT]
        left = sent - counters[layout.P_EVICTED] - counters[layout.P_REFUSED]
        taken = min(counters[layout.C_RECEIVED], left)
        handed = max(taken - counters[layout.C_DISCARDED] - (broken - malformed), 0)
        # Includes a message that an end has taken or numbered, but not yet counted or written.
        queued = max(left - taken - malformed - self._lost, 0)
        buckets = counters[layout.HISTOGRAM : layout.HISTOGRAM + layout.HISTOGRAM_BUCKETS]
        return EdgeStatistics(
            sent=sent,
            received=handed,
            dropped=sent - handed - queued,
            queued=queued,
            bytes_sent=counters[layout.P_BYTES_SENT],
            bytes_received=counters[layout.C_BYTES_RECEIVED],
            broken=broken,
            unmatched=counters[layout.C_UNMATCHED],
            copied=counters[layout.C_COPIED],
            blocked=bool(counters[layout.P_BLOCKED]),
            last_arrival_ns=counters[layout.C_LAST_ARRIVAL_NS],
            latency=tuple((layout.bucket_start(i + 1), n) for i, n in enumerate(buckets) if n),
        )

    def close(self) -> None:
        """Close the runner's descriptors and free the edge's area on the board."""
        self.ends.close()
        if self._words[layout.X_CONSUMER_DEAD]:
            self.board.free_edge(self.spec.area)
