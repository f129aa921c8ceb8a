"""The data plane on one machine: kernel pipes with 64-byte records, payloads in shared memory.

The runner makes a `Board` (counters of the dataflow) and, for every input, a queue
(`create_queue`), whose `QueueKeeper` writes what ends or changes the input. A producer sends
through a `Sender`, a consumer reads through one `Receiver` for each input and sleeps in a `Waiter`.
"""

from __future__ import annotations

from dora_node_api.transport.board import Board, NodeWords
from dora_node_api.transport.errors import (
    BoardFull,
    BrokenRecord,
    NodeForked,
    PoolExhausted,
    QueueGone,
    SampleError,
    TransportError,
)
from dora_node_api.transport.layout import LARGEST_BOUND, RECORD_SIZE, RecordKind
from dora_node_api.transport.pool import Pool, default_pool_cap
from dora_node_api.transport.queue import QueueEnds, QueueKeeper, create_queue
from dora_node_api.transport.received import Delivery
from dora_node_api.transport.receiving import Receiver
from dora_node_api.transport.samples import Sample
from dora_node_api.transport.sending import Sender
from dora_node_api.transport.specs import BACKPRESSURE, DROP_OLDEST, QueueSpec
from dora_node_api.transport.statistics import EdgeStatistics, Histogram, read_statistics
from dora_node_api.transport.waiting import Waiter

__all__ = [
    "BACKPRESSURE",
    "DROP_OLDEST",
    "LARGEST_BOUND",
    "RECORD_SIZE",
    "Board",
    "BoardFull",
    "BrokenRecord",
    "Delivery",
    "EdgeStatistics",
    "Histogram",
    "NodeForked",
    "NodeWords",
    "Pool",
    "PoolExhausted",
    "QueueEnds",
    "QueueGone",
    "QueueKeeper",
    "QueueSpec",
    "Receiver",
    "RecordKind",
    "Sample",
    "SampleError",
    "Sender",
    "TransportError",
    "Waiter",
    "create_queue",
    "default_pool_cap",
    "read_statistics",
]
