"""The page about metrics: every family with its type, unit and labels."""

from __future__ import annotations

from tables import NOTICE, table

from dora_config.protocol.snapshot import Snapshot
from dora_coordinator.telemetry.families import LATENCY_BOUNDS, Family, MetricKind, families

PAGE = "reference/metrics.md"

INTRODUCTION = f"""\
{NOTICE}

# Metrics

What `GET /metrics` of the coordinator returns (OpenMetrics 1.0) and what is exported through OTLP. [How to scrape them](../howto/observability.md#prometheus).
Counters have the suffix `_total` in OpenMetrics, histograms `_bucket`, `_count` and `_sum`.
"""
ENDING = f"""\
Bounds of the latency buckets in seconds: {", ".join(f"{bound / 1e9:g}" for bound in LATENCY_BOUNDS)}.
"""


def render() -> str:
    rows = [_row(family) for family in families(Snapshot(), max_edges=0)]
    columns = ("metric", "type", "unit", "labels", "meaning")
    return "\n".join([INTRODUCTION, table(columns, rows), "", ENDING])


def _row(family: Family) -> tuple[str, ...]:
    suffix = "_total" if family.kind is MetricKind.COUNTER else ""
    labels = ", ".join(f"`{label}`" for label in family.labels)
    return (f"`{family.name}{suffix}`", family.kind.value, family.unit, labels, family.help)
