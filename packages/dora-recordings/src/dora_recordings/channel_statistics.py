"""Counts, rates and gaps of the channels of a recording; pure."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class ChannelStatistics:
    """Counts of one output; times are in nanoseconds."""

    topic: str
    types: dict[str, None] = field(default_factory=dict)
    messages: int = 0
    nbytes: int = 0
    first: int = 0
    last: int = 0
    longest_gap: int = 0
    missing: int = 0
    """Messages that were sent between recorded ones and are not in the file."""
    _sequence: int = 0

    def add(self, type_name: str, log_time: int, sequence: int, nbytes: int) -> None:
        """Count the next message, in the order of time."""
        self.types[type_name] = None
        if self.messages:
            self.longest_gap = max(self.longest_gap, log_time - self.last)
            self.missing += max(sequence - self._sequence - 1, 0)
        else:
            self.first = log_time
        self.last = log_time
        self._sequence = sequence
        self.messages += 1
        self.nbytes += nbytes

    @property
    def rate(self) -> float | None:
        """Messages per second; None for fewer than two."""
        span = self.last - self.first
        return (self.messages - 1) * 1e9 / span if span > 0 else None
