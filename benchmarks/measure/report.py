"""The table of a comparison: medians, ratios with their spread, targets; returns text only."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from .targets import TARGETS, Series, Target, further_consumer, ratios

Results = Mapping[str, Mapping[str, Series]]  # scenario -> number -> system -> values
FAN_OUT_ENDS = ("512 B each further", "8 MiB each further")


class Measured(Protocol):
    """Name and units of a scenario."""

    @property
    def name(self) -> str: ...

    @property
    def units(self) -> dict[str, str]: ...


def table(
    measured: Iterable[Measured],
    results: Results,
    targets: Mapping[tuple[str, str], list[Target]] = TARGETS,
    others: Sequence[str] = ("dora-rs", "tuned"),
) -> str:
    """Return the report, a line a number. ``others``: the systems to compare ours with."""
    ratios_to = [f"ours/{other}" for other in others]
    header = ("what", "unit", "ours", *others, *ratios_to, "target", "")
    rows: list[tuple[str, ...]] = [header]
    for scenario in measured:
        numbers = results.get(scenario.name, {})
        for number, unit in scenario.units.items():
            if series := numbers.get(number):
                bounds = targets.get((scenario.name, number), [])
                rows.append(_row(f"{scenario.name}: {number}", unit, series, bounds, others))
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * len(max(lines, key=len)))
    return "\n".join([*lines, *_fan_out_verdict(results)])


def _row(
    what: str, unit: str, series: Series, targets: list[Target], others: Sequence[str]
) -> tuple[str, ...]:
    return (
        what,
        unit,
        *(_spread(series.get(system, [])) for system in ("ours", *others)),
        *(_spread(ratios(series, system)) for system in others),
        ", ".join(map(str, targets)),
        _verdict(targets, series),
    )


def _verdict(targets: list[Target], series: Series) -> str:
    verdicts = [target.met_by(series) for target in targets]
    if not verdicts or None in verdicts:
        return ""
    return "met" if all(verdicts) else "MISSED"


def _spread(values: list[float]) -> str:
    """Return the median, and the range where there is one: `12.4 [11.9-15]`."""
    if not values:
        return "-"
    middle = _short(statistics.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} [{_short(min(values))}-{_short(max(values))}]"


def _short(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _fan_out_verdict(results: Results) -> list[str]:
    numbers = results.get("fanout", {})
    small, large = (numbers.get(end, {}).get("ours", []) for end in FAN_OUT_ENDS)
    if not small or not large:
        return []
    met = "met" if further_consumer(small, large) else "MISSED"
    return [f"fanout: a further consumer costs the same at 512 B and at 8 MiB: {met}"]
