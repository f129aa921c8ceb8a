"""Numbers of messages by output; pure."""

from __future__ import annotations


class Counts:
    """Counts by output; outputs without messages are left out."""

    def __init__(self) -> None:
        self.by_topic: dict[str, int] = {}

    def add(self, topic: str, count: int) -> None:
        if count > 0:
            self.by_topic[topic] = self.by_topic.get(topic, 0) + count


class Sequences:
    """Finds messages that a queue has dropped: sequence numbers of a queue have no gaps."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def missed(self, topic: str, sequence: int) -> int:
        """Return the number of messages between the last one and this one."""
        missed = sequence - self._last.get(topic, 0) - 1
        self._last[topic] = sequence
        return max(missed, 0)
