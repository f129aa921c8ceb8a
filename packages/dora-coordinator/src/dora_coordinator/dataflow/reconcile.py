"""Repairs or reports differences between the records and the reports of machines; pure.

Each kind of difference has one repair, which is tried again with growing delays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from dora_config.retry import Retry, RetryPolicy
from dora_coordinator.dataflow.data import DataflowData
from dora_coordinator.dataflow.differences import (
    MAX_DIFFERENCE_SECONDS,
    NAMED_AFTER,
    REPAIRED_AFTER,
    Difference,
    Key,
    of_dataflow,
    of_parts,
    without_record,
)
from dora_coordinator.state.membership import Membership

SWEEP_SECONDS: Final = 10.0
"""Seconds between comparisons of all parts; an event causes the comparison of one part at once."""
NAMED_AFTER_FAILURES: Final = 3
"""Failed repairs after which a difference is reported, however briefly it lasts each time."""


@dataclass(slots=True)
class _Track:
    """A difference that lasts."""

    since: float
    text: str
    retry: Retry


@dataclass(eq=False)
class Reconciler:
    """Tracks the age of each difference, and decides when it is repaired or reported."""

    _membership: Membership
    _policy: RetryPolicy
    """Policy for repairs of the same difference."""
    _tracks: dict[str, dict[Key, _Track]] = field(default_factory=dict, init=False)
    """Tracks by dataflow id."""
    wake_at: float | None = None
    """Time of the next repair or report; None: nothing is due."""

    def compare(self, data: DataflowData, daemon: str, now: float) -> list[Difference]:
        """Compare one part, or all of a dataflow without ``daemon``; return what is to be repaired
        now.
        """
        parts = [data.parts[daemon]] if daemon in data.parts else list(data.parts.values())
        found = list(of_parts(data, parts, self._membership, now))
        chosen = {part.daemon for part in parts}
        known = self._tracks.get(data.id, {})
        self._forget(
            data.id,
            [key for key in known if key[1] in chosen and key[0] != "unlinked"],
            {one.key for one in found},
        )
        return self._due(found, now, {data.id: data})

    def sweep(self, dataflows: Iterable[DataflowData], now: float) -> list[Difference]:
        """Compare everything, also parts without a record; return what is to be repaired now."""
        known = {data.id: data for data in dataflows}
        self.wake_at = None
        found = [one for data in known.values() for one in of_dataflow(data, self._membership, now)]
        found += without_record(known, self._membership.all())
        keys: dict[str, set[Key]] = {}
        for one in found:
            keys.setdefault(one.dataflow, set()).add(one.key)
        for dataflow_id, tracks in list(self._tracks.items()):
            self._forget(dataflow_id, list(tracks), keys.get(dataflow_id, set()))
        return self._due(found, now, known)

    def _forget(self, dataflow_id: str, keys: Iterable[Key], kept: set[Key]) -> None:
        """Remove the tracks of differences that have ended."""
        tracks = self._tracks.get(dataflow_id, {})
        for key in keys:
            if key not in kept:
                del tracks[key]
        if dataflow_id in self._tracks and not tracks:
            del self._tracks[dataflow_id]

    def _due(
        self, found: Iterable[Difference], now: float, known: Mapping[str, DataflowData]
    ) -> list[Difference]:
        due = []
        for one in found:
            track = self._track(one, known.get(one.dataflow), now)
            track.text = one.text
            after, retry = REPAIRED_AFTER.get(one.kind), track.retry
            if after is None:
                continue
            wait = max(track.since + after - now, retry.wait(now))
            if wait <= 0:
                due.append(one)
                wait = retry.failed(self._policy, now)
            self._wake(now + wait)
        return due

    def _track(self, one: Difference, data: DataflowData | None, now: float) -> _Track:
        tracks = self._tracks.setdefault(one.dataflow, {})
        track = tracks.get(one.key)
        if track is None:
            track = tracks[one.key] = _Track(now, one.text, Retry())
            if one.kind == "missing" and data is not None:
                track.retry = data.parts[one.machine].retry  # the back-off continues across losses
        return track

    def _wake(self, at: float) -> None:
        self.wake_at = at if self.wake_at is None else min(self.wake_at, at)

    def named(self, dataflow_id: str, now: float) -> list[str]:
        """Return a sentence about each difference that lasts."""
        return [
            track.text
            for (kind, _, _), track in self._tracks.get(dataflow_id, {}).items()
            if now - track.since >= NAMED_AFTER.get(kind, MAX_DIFFERENCE_SECONDS)
            or track.retry.failures >= NAMED_AFTER_FAILURES
        ]
