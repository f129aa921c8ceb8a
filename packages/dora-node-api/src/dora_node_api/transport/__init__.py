"""The data plane on one machine: kernel pipes with 64-byte records, payloads in shared memory.

The runner makes a `Board` (counters of the dataflow) and, for every input, a queue
(`create_queue`), whose `QueueKeeper` writes the lifecycle records. A producer sends through a
`Sender`; a consumer reads through one `Receiver` for each input and sleeps in a `Waiter`.
"""

from __future__ import annotations

from dora_node_api.transport.consumer.delivery import Delivery
from dora_node_api.transport.consumer.receiving import Receiver
from dora_node_api.transport.consumer.waiting import Waiter
from dora_node_api.transport.producer.blocks import Sample
from dora_node_api.transport.producer.pool import Pool, default_pool_cap
from dora_node_api.transport.producer.sending import Sender
from dora_node_api.transport.shared.board import Board, NodeWords
from dora_node_api.transport.shared.errors import (
    BoardFull,
    BrokenRecord,
    NodeForked,
    PoolExhausted,
    SampleError,
    TransportError,
)
from dora_node_api.transport.shared.layout import MAX_BOUND, RECORD_SIZE, RecordKind
from dora_node_api.transport.shared.queue import QueueEnds, create_queue
from dora_node_api.transport.shared.queue_keeper import EdgeStatistics, QueueKeeper, read_statistics
from dora_node_api.transport.shared.specs import QueueSpec

__all__ = [
    "MAX_BOUND",
    "RECORD_SIZE",
    "Board",
    "BoardFull",
    "BrokenRecord",
    "Delivery",
    "EdgeStatistics",
    "NodeForked",
    "NodeWords",
    "Pool",
    "PoolExhausted",
    "QueueEnds",
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
