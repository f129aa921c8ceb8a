"""Which nodes have fallen silent and which inputs have timed out, from counters read now; pure."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Pulse:
    """What the status board says about a connected node. Times in seconds, one clock."""

    last_beat: float
    waiting: bool
    """Asleep in ``next()``."""
    blocked: bool = False
    """Waits for room in a full backpressure queue."""


def silence(pulse: Pulse, connected_at: float, now: float) -> float:
    """Seconds for which a node gave no sign of life; 0 if it waits for others."""
    if pulse.waiting or pulse.blocked:
        return 0.0
    return max(0.0, now - max(pulse.last_beat, connected_at))


@dataclass(slots=True)
class InputWatch:
    """Inputs with an ``input_timeout``: armed by their first message, broken by silence."""

    broken: dict[str, set[str]] = field(default_factory=dict)
    timeouts: dict[str, int] = field(default_factory=dict)
    recoveries: dict[str, int] = field(default_factory=dict)

    def look(
        self, node: str, input_id: str, *, last_arrival: float, timeout: float, now: float
    ) -> None:
        """Judge one input; ``last_arrival`` 0 means that nothing came yet."""
        broken = self.broken.setdefault(node, set())
        silent = last_arrival > 0 and now - last_arrival > timeout
        if silent and input_id not in broken:
            broken.add(input_id)
            self.timeouts[node] = self.timeouts.get(node, 0) + 1
        elif not silent and input_id in broken:
            broken.discard(input_id)
            self.recoveries[node] = self.recoveries.get(node, 0) + 1

    def closed(self, node: str, input_id: str) -> None:
        """An input that ended for good is not broken."""
        self.broken.get(node, set()).discard(input_id)
