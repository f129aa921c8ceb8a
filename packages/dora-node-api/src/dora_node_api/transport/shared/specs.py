"""Description of a queue, shared by its ends and the runner."""

from dora_node_api.frozen import FrozenRecord
from dora_node_api.queue_policy import QueuePolicy
from dora_node_api.transport.shared.layout import journal_size


class QueueSpec(FrozenRecord):
    """One input's queue: its producer, its consumer, and the place of its counters."""

    queue: int
    """Number assigned by the runner, used once in a dataflow."""
    producer: str
    output: str
    consumer: str
    input: str
    policy: QueuePolicy = QueuePolicy.DROP_OLDEST
    bound: int = 10
    """Limit of waiting messages; 1 to 16,000."""
    area: int = 0
    """Offset in the status board, from `Board.allocate_edge`."""
    ledger_slots: int = 0
    """Length of the release ledger, from `Board.allocate_edge`."""
    hold_limit: int = 64 * 1024 * 1024
    """Bytes that the consumer may keep alive; beyond, it gets private copies."""
    journal: bool = False
    """Whether the queue is one of a link and has a journal (`consumer.journal`)."""

    remote: bool = False
    """Whether the messages come from another machine, through a link."""

    @property
    def edge(self) -> str:
        """Name of the edge in messages: `camera/image -> plot/picture`."""
        return f"{self.producer}/{self.output} -> {self.consumer}/{self.input}"

    @property
    def backpressure(self) -> bool:
        """Whether the sender waits while the queue is full."""
        return self.policy is QueuePolicy.BACKPRESSURE

    @property
    def journal_size(self) -> int:
        """Bytes of its journal."""
        return journal_size(self.bound) if self.journal else 0

    @property
    def consumer_descriptors(self) -> int:
        """Number of `QueueEnds.for_consumer`: with backpressure, one more wakes the producer."""
        return 3 if self.backpressure else 2
