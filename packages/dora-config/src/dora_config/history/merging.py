"""Events of all machines in one order, with corrected times; pure.

The times of a machine are corrected by its clock offset. Events of one machine keep their order
even if its clock was set back in between.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dora_config.history.entries import HistoryEntry, HistoryEvent
from dora_config.history.evidence import Evidence


@dataclass(frozen=True, slots=True)
class TimedEvent:
    """An event with its corrected time."""

    at: float
    machine: str | None
    """``None``: the coordinator."""
    event: HistoryEvent


def merged(evidence: Evidence) -> list[TimedEvent]:
    """Return the events of the coordinator and of all machines, oldest first."""
    sources = [_corrected(None, evidence.entries, 0.0)]
    sources += [_corrected(one.machine, one.entries, one.clock_offset) for one in evidence.machines]
    return list(heapq.merge(*sources, key=lambda event: event.at))


def _corrected(
    machine: str | None, entries: Sequence[HistoryEntry], offset: float
) -> Iterator[TimedEvent]:
    latest = float("-inf")
    for entry in entries:
        latest = max(latest, entry.at - offset)
        yield TimedEvent(latest, machine, entry.event)
