"""Metrics as OpenMetrics text, for `GET /metrics`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from dora_coordinator.telemetry.families import LATENCY_BOUNDS, Distribution, Family, MetricKind

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
_BOUNDS: Final = (*(str(bound / 1e9) for bound in LATENCY_BOUNDS), "+Inf")


def openmetrics(families: Iterable[Family]) -> bytes:
    """Return the text of the metrics."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(families))
    return bytes(generate_latest(registry))


class _Collected(Collector):
    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def describe(self) -> Iterator[Metric]:
        yield from ()

    def collect(self) -> Iterator[Metric]:
        return map(_metric, self._families)


def _metric(family: Family) -> Metric:
    types: dict[MetricKind, Any] = {
        MetricKind.GAUGE: GaugeMetricFamily,
        MetricKind.COUNTER: CounterMetricFamily,
        MetricKind.HISTOGRAM: HistogramMetricFamily,
    }
    metric = types[family.kind](family.name, family.help, labels=family.labels, unit=family.unit)
    for sample in family.samples:
        match sample.value:
            case Distribution(counts=counts, total=total):
                buckets = list(zip(_BOUNDS, map(float, accumulate(counts)), strict=True))
                metric.add_metric(sample.labels, buckets, total)
            case value:
                metric.add_metric(sample.labels, value)
    assert isinstance(metric, Metric)
    return metric
