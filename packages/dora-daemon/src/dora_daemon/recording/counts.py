"""Numbers of messages by output; pure."""

from __future__ import annotations


class Counts:
    """Counts by output; outputs without messages are left out."""

    def __init__(self) -> None:
        self.by_topic: dict[str, int] = {}

    def add(self, topic: str, count: int) -> None:
        if count > 0:
            self.by_topic[topic] = self.by_topic.get(topic, 0) + count

    def move(self, topic: str, count: int, other: Counts) -> None:
        """Count these messages elsewhere."""
        self.by_topic[topic] -= count
        other.add(topic, count)
