"""Export of metrics and spans to an OpenTelemetry collector (OTLP over HTTP).

The SDK reads its usual variables (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_HEADERS`,
`OTEL_SERVICE_NAME`, ...). Calls that send block for as long as the collector takes: call them in a
worker thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Span, Status, StatusCode, set_span_in_context

from dora_coordinator._version import __version__
from dora_coordinator.telemetry.families import (
    LATENCY_BOUNDS,
    Distribution,
    Family,
    MetricKind,
    MetricSample,
)
from dora_coordinator.telemetry.spans import SpanBegun, SpanEnded, SpanEvent, SpanKey

_SCOPE = "dora_coordinator"
_UNITS = {"seconds": "s", "bytes": "By", "": "1"}
_BOUNDS = tuple(bound / 1e9 for bound in LATENCY_BOUNDS)
_UNKNOWN_START = 0
"""Value of OTLP for a counter that began at an unknown time."""


def _resource() -> Resource:
    """Return the description of this process; the environment has precedence."""
    return Resource({SERVICE_NAME: "dora-coordinator"}).merge(OTELResourceDetector().detect())


class MetricSender:
    """Sends metrics; use it from one thread at a time."""

    def __init__(self) -> None:
        self._exporter = OTLPMetricExporter()
        self._resource = _resource()

    def send(self, families: Iterable[Family], unix_time: float) -> bool:
        """Send the metrics of a snapshot; return False if they were not accepted."""
        nanoseconds = int(unix_time * 1e9)
        metrics = [_metric(family, nanoseconds) for family in families if family.samples]
        scope = ScopeMetrics(InstrumentationScope(_SCOPE, __version__), metrics, "")
        data = MetricsData([ResourceMetrics(self._resource, [scope], "")])
        return self._exporter.export(data) is MetricExportResult.SUCCESS

    def close(self) -> None:
        self._exporter.shutdown()


def _metric(family: Family, at: int) -> Metric:
    data: Sum | Gauge | Histogram
    match family.kind:
        case MetricKind.COUNTER:
            points = [_number(family, sample, at) for sample in family.samples]
            data = Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True)
        case MetricKind.GAUGE:
            data = Gauge([_number(family, sample, at) for sample in family.samples])
        case MetricKind.HISTOGRAM:
            found = [_distribution(family, sample, at) for sample in family.samples]
            data = Histogram(found, AggregationTemporality.CUMULATIVE)
    return Metric(family.name, family.help, _UNITS[family.unit], data)


def _attributes(family: Family, sample: MetricSample) -> dict[str, str]:
    return dict(zip(family.labels, sample.labels, strict=True))


def _number(family: Family, sample: MetricSample, at: int) -> NumberDataPoint:
    assert not isinstance(sample.value, Distribution)
    return NumberDataPoint(_attributes(family, sample), _UNKNOWN_START, at, sample.value)


def _distribution(family: Family, sample: MetricSample, at: int) -> HistogramDataPoint:
    value = sample.value
    assert isinstance(value, Distribution)
    occupied = [index for index, count in enumerate(value.counts) if count]
    bounds = (0.0, *_BOUNDS, _BOUNDS[-1])
    return HistogramDataPoint(
        attributes=_attributes(family, sample),
        start_time_unix_nano=_UNKNOWN_START,
        time_unix_nano=at,
        count=sum(value.counts),
        sum=value.total,
        bucket_counts=value.counts,
        explicit_bounds=_BOUNDS,
        min=bounds[occupied[0]] if occupied else 0.0,
        max=bounds[occupied[-1] + 1] if occupied else 0.0,
    )


class SpanSender:
    """Creates spans; a thread of the SDK sends them in batches."""

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        """``exporter``: None for OTLP as configured by the environment."""
        self._provider = TracerProvider(resource=_resource())
        self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer(_SCOPE, __version__)
        self._open: dict[SpanKey, Span] = {}
        self._unix_offset = time.time() - time.monotonic()

    def handle(self, events: Iterable[SpanEvent]) -> None:
        """Begin and end spans; times are readings of the monotonic clock."""
        for event in events:
            match event:
                case SpanBegun():
                    self._begin(event)
                case SpanEnded(key=key, at=at, error=error):
                    span = self._open.pop(key)
                    if error is not None:
                        span.set_status(Status(StatusCode.ERROR, error))
                    span.end(self._nanoseconds(at))

    def _begin(self, event: SpanBegun) -> None:
        parent = None if event.parent is None else self._open.get(event.parent)
        context = None if parent is None else set_span_in_context(parent)
        self._open[event.key] = self._tracer.start_span(
            event.name,
            context=context,
            attributes=event.attributes,
            start_time=self._nanoseconds(event.at),
        )

    def _nanoseconds(self, at: float) -> int:
        return int((at + self._unix_offset) * 1e9)

    def close(self) -> None:
        """Send what is left."""
        for span in self._open.values():
            span.end()
        self._provider.shutdown()
