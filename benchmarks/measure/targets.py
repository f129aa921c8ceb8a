"""Targets for our numbers (pure)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

Series = Mapping[str, list[float]]  # a system's name -> one value a repetition


@dataclass(frozen=True)
class Target:
    """A bound on ours as a multiple of others (`against`), or, with none, on its value itself."""

    bound: float
    against: tuple[str, ...] = ()
    at_most: bool = True

    def __str__(self) -> str:
        sign = "<=" if self.at_most else ">="
        if not self.against:
            return f"{sign} {self.bound:g}"
        return f"{sign} {self.bound:.3g}x {' and '.join(self.against)}"

    def met_by(self, series: Series) -> bool | None:
        """Return whether the medians meet the bound; None if something was not measured."""
        if not series.get("ours"):
            return None
        if not self.against:
            return self._holds(statistics.median(series["ours"]))
        compared = [ratios(series, other) for other in self.against]
        if not all(compared):
            return None
        return all(self._holds(statistics.median(ratio)) for ratio in compared)

    def _holds(self, value: float) -> bool:
        return value <= self.bound if self.at_most else value >= self.bound


def ratios(series: Series, other: str) -> list[float]:
    """Return ours / other for each repetition: both ran within the same seconds."""
    pairs = zip(series.get("ours", []), series.get(other, []), strict=False)
    return [ours / theirs for ours, theirs in pairs if theirs]


BOTH, DORA_RS, TUNED = ("dora-rs", "tuned"), ("dora-rs",), ("tuned",)
_SMALL = ("8 B", "512 B", "4 KiB", "64 KiB")
_ONE_WAY = (*_SMALL, "1 MiB", "8 MiB")

TARGETS: dict[tuple[str, str], list[Target]] = {
    **{(f"roundtrip {size}", "p50"): [Target(1 / 6, BOTH)] for size in _SMALL},
    ("roundtrip 1 MiB", "p50"): [Target(1 / 3, BOTH)],
    ("roundtrip 4 MiB", "p50"): [Target(0.7, TUNED), Target(1 / 15, DORA_RS)],
    ("roundtrip 16 MiB", "p50"): [Target(0.7, TUNED), Target(1 / 40, DORA_RS)],
    ("roundtrip 40 MiB", "p50"): [Target(0.7, TUNED), Target(1 / 40, DORA_RS)],
    **{(f"oneway {size}", "messages"): [Target(4, BOTH, at_most=False)] for size in _SMALL},
    ("oneway 8 MiB", "volume"): [Target(1, TUNED, at_most=False)],
    **{(f"paced {size}", "lost"): [Target(0)] for size in _ONE_WAY},
    **{("commands", name): [Target(120)] for name in ("--help", "list", "stop")},
    ("startup 2", "wall"): [Target(0.6)],
    ("startup 20", "wall"): [Target(1, DORA_RS)],
    ("startup 50", "wall"): [Target(1, DORA_RS)],
    ("idle 10", "cpu"): [Target(1, DORA_RS)],
    **{
        (f"timer {period} ms", f"{part} error"): [Target(1, DORA_RS)]
        for period in (1, 10)
        for part in ("p50", "p99")
    },
}


def further_consumer(smallest: list[float], largest: list[float]) -> bool:
    """Return whether a further consumer costs the same whatever the payload.

    The same means within half as much again, or within 5 us where that is more: the clock's and
    the scheduler's noise.
    """
    small, large = statistics.median(smallest), statistics.median(largest)
    return large <= max(1.5 * small, small + 5.0)
