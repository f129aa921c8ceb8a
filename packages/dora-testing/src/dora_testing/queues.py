"""The queue of an input, with the size and policy of the dataflow file; pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from dora_config.dataflow.resolved import QueueSettings
from dora_node_api.transport.consumer.delivery import Delivery
from dora_node_api.transport.shared.layout import FLAG_FLUSH, FLAG_PROTECTED, RecordKind


class InputQueue:
    """Records that wait at one input, oldest first."""

    def __init__(self, node: str, input_id: str, wanted: QueueSettings) -> None:
        self.node = node
        self.input = input_id
        self.bound = wanted.queue_size
        self.backpressure = wanted.queue_policy == "backpressure"
        self.dropped = 0
        """Messages that were dropped for newer ones."""
        self.on_way = 0
        """Messages that were sent and have not arrived."""
        self.open = True
        """Whether the node will read again."""
        self.took: Callable[[Delivery], None] = lambda record: None
        """Called with each record that the node takes."""
        self._records: deque[Delivery] = deque()
        self._messages = 0

    @property
    def full(self) -> bool:
        """Whether the queue is full and its sender waits."""
        return self.open and self.backpressure and self._messages + self.on_way >= self.bound

    @property
    def waiting(self) -> int:
        """Number of waiting messages."""
        return self._messages

    def put(self, record: Delivery) -> None:
        """Add a record; a full queue drops its oldest message that may be dropped."""
        if not self.open:
            return
        if record.kind is RecordKind.DATA:
            if not self.backpressure and not record.flags & FLAG_PROTECTED:
                older = [one for one in self._records if _is_droppable(one)]
                keep = 0 if record.flags & FLAG_FLUSH else self.bound - 1
                for dropped in older[: max(0, len(older) - keep)]:
                    self._records.remove(dropped)
                    self._messages -= 1
                    self.dropped += 1
            self._messages += 1
        self._records.append(record)

    def take(self) -> Delivery | None:
        """Return the oldest record, None if nothing waits."""
        if not self._records:
            return None
        record = self._records.popleft()
        self._messages -= record.kind is RecordKind.DATA
        self.took(record)
        return record

    def ready(self) -> bool:
        """Whether a record waits."""
        return bool(self._records)

    def close(self) -> None:
        """Drop everything: the node reads nothing more."""
        self.open = False
        self._records.clear()
        self._messages = 0


def _is_droppable(record: Delivery) -> bool:
    return record.kind is RecordKind.DATA and not record.flags & FLAG_PROTECTED
