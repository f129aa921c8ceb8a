"""Layout of shared memory and of queue records: every struct and offset; maps nothing itself.

All words are 8 bytes, aligned, native order, and have one writer each. A *record* is one item in a
queue's pipe: 64 bytes, written and read by one atomic system call. A *block* holds a payload in a
segment; its head repeats the record's stamp, so that a record with a wrong address is detected.

CHECK contains VERSION: raise it with every change of this module, and PROTOCOL_VERSION with it.
"""

from __future__ import annotations

import struct
from enum import IntEnum

VERSION = 1
RECORD_SIZE = 64
RECORD_WORDS = 8
# Words of a record. The last one is the sequence number xor CHECK: a torn or foreign record fails.
R_SEQUENCE = 0
R_SEGMENT = 1  # incarnation << 32 | segment number
R_OFFSET = 2
R_LENGTH = 3  # bytes of the block in use, its head included
R_SENT_NS = 4  # CLOCK_MONOTONIC
R_STAMP = 5
R_TAGS = 6  # slot | generation << 16 | kind << 24 | flags << 32
R_CHECK = 7
CHECK = 0x646F_7261_5F70_7930 + VERSION  # "dora_py1"
RECORD = struct.Struct("=8Q")

NO_SLOT = 0xFFFF  # a record without a ledger slot: the receiver copies, which releases it
FLAG_PROTECTED = 1
FLAG_FLUSH = 2

MAX_BOUND = 16_000
# Room that the producer leaves in a pipe for the runner's lifecycle records.
LIFECYCLE_ROOM = 64


class RecordKind(IntEnum):
    """Kind of a record."""

    DATA = 0
    CLOSED = 1
    """The input ended; no record follows."""
    NODE_RESTARTED = 2
    NODE_FAILED = 3


# --- blocks ---------------------------------------------------------------------------------
# magic, descriptor bytes, metadata bytes, stamp, CLOCK_REALTIME ns, offset of the data, layout,
# and the array's length, null count
BLOCK_HEAD = struct.Struct("=IIIIQQQqq")
BLOCK_HEAD_SIZE = 64
BLOCK_WALL = 24  # offset of the CLOCK_REALTIME word
WORD = struct.Struct("=Q")
BLOCK_MAGIC = 0x6472_626B
ALIGNMENT = 64
# Bytes from which on a data area begins at a page. If the target of a copy has nearly the same
# offset in its page as the source, a little behind, x86 processors mistake each load for one of the
# preceding store ("4K aliasing"), and the copy takes two to three times as long. Large sources
# usually begin a few bytes into a page.
PAGED = 16 * 1024

# --- status board ---------------------------------------------------------------------------
PAGE = 4096
BOARD_MAGIC = 0x646F_7261_626F_6172

# An edge's area has two parts on pages of their own, since each process can write only its own
# words: the consumer's end where the area's offset is, the producer's begin there. From low to
# high: journal (of a link's queue), ledger, consumer's words; producer's words, notice, and the
# generations that the producer has given out.
CONSUMER_WORDS = 256

C_RECEIVED = 0  # records taken out of the pipes; stored right after the read
C_BYTES_RECEIVED = 1
C_LAST_DATA = 2  # last sequence number taken from the data pipe
C_LAST_URGENT = 3
C_SETTLED = 4  # everything up to it was handed out or dropped
C_DISCARDED = 5  # taken, but not handed out: held too long, flushed
C_BROKEN = 6
C_LAST_ARRIVAL_NS = 7  # CLOCK_MONOTONIC
C_COPIED = 8  # private copies made
C_CLOSED = 9  # 1 once the consumer has closed the input: unread records are void
C_ACKNOWLEDGED = 10  # with a journal: everything up to it is settled (see `consumer.journal`)
C_UNMATCHED = 11  # handed out, but in no sample of `Node.joined`

# Written by the runner as well, once it has reaped the consumer.
F_FLOOR_DATA = 16  # records of the data pipe below it were read by a consumer that has ended
F_FLOOR_URGENT = 17
X_CONSUMER_DEAD = 18  # 1 from when the consumer was reaped until another one is started

HISTOGRAM = 64  # first of the latency histogram's words
HISTOGRAM_BUCKETS = 160

# The runner writes these too while the producer does not run.
P_SENT = CONSUMER_WORDS  # last sequence number given out; stored before the record is written
P_BYTES_SENT = P_SENT + 1
P_EVICTED = P_SENT + 2
P_BLOCKED = P_SENT + 3  # 1 while the producer waits for room
P_EVICTED_SEQUENCE = P_SENT + 4  # of the data pipe: records up to it have left the pipe
P_FLUSHED = P_SENT + 5  # records of the data pipe below it are void
P_REFUSED = P_SENT + 6
# Where a link process writes for a source on another machine (see `producer.forwarding`).
P_SOURCE = P_SENT + 7  # the source's number of the last message in the queue
P_SOURCE_NEXT = P_SENT + 8  # of the message that is being written, stored before it
P_SOURCE_SENT = P_SENT + 9  # P_SENT when P_SOURCE was stored
P_SOURCE_RUN = P_SENT + 10  # the run of the source that these numbers belong to
P_NOTICE_LENGTH = P_SENT + 11  # bytes of text that go with the last NODE_FAILED
EDGE_WORDS = CONSUMER_WORDS + 16

WORDS_AT = -8 * CONSUMER_WORDS  # relative to the area
NOTICE = WORDS_AT + 8 * EDGE_WORDS
NOTICE_SIZE = 2048
ASSIGNED = NOTICE + NOTICE_SIZE  # one byte a slot: the generation given out last
# Before the words lies the ledger, one byte a slot: the generation released last.


def journal_size(bound: int) -> int:
    """Return the size of the journal of a queue of ``bound`` messages.

    It holds what a link has taken from the queue: the record in hand, then unacknowledged ones.
    """
    return min(max(64, 2 * bound + 2), 512) * RECORD_SIZE


def consumer_size(ledger_slots: int, journal: int) -> int:
    """Return the size of the consumer's part of an edge's area, a whole number of pages."""
    return -(-(ledger_slots + journal - WORDS_AT) // PAGE) * PAGE


def producer_size(ledger_slots: int) -> int:
    """Return the size of the producer's part of an edge's area, a whole number of pages."""
    return -(-(ASSIGNED + ledger_slots) // PAGE) * PAGE


def ledger_slots_for(bound: int) -> int:
    """Return the slots for a queue of ``bound`` messages and as many (at least 900) held arrays."""
    return min(max(1024, 2 * bound + 128 + 7 & -8), 32_768)


def data_offset(head: int, nbytes: int) -> int:
    """Return the offset of a data area of ``nbytes`` in its block, behind ``head`` bytes."""
    alignment = ALIGNMENT if nbytes < PAGED else PAGE
    return head + alignment - 1 & -alignment


def pack_tags(slot: int, generation: int, kind: int, flags: int) -> int:
    return slot | generation << 16 | kind << 24 | flags << 32


def unpack_tags(tags: int) -> tuple[int, int, int, int]:
    """Return slot, generation, kind and flags."""
    return tags & 0xFFFF, tags >> 16 & 0xFF, tags >> 24 & 0xFF, tags >> 32


def latency_bucket(nanoseconds: int) -> int:
    """Return the index in the latency histogram: log-linear, four buckets a doubling."""
    units = nanoseconds >> 6
    if units < 4:
        return units if units > 0 else 0
    exponent = units.bit_length() - 1
    index = (exponent - 1) << 2 | (units >> exponent - 2) & 3
    return index if index < HISTOGRAM_BUCKETS else HISTOGRAM_BUCKETS - 1


def bucket_start(index: int) -> int:
    """Return the smallest latency of a bucket in nanoseconds."""
    if index < 4:
        return index << 6
    exponent = (index >> 2) + 1
    return (4 + (index & 3)) << exponent - 2 << 6
