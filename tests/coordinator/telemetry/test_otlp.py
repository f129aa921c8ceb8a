"""Export to a collector of OpenTelemetry: what it receives."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import NamedTuple, cast

import anyio
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from support.serving import served
from support.waiting import wait_until_async

from dora_config.protocol.control import Answer, GetSnapshot
from dora_config.protocol.snapshot import EdgeSummary, NodeSummary, Snapshot
from dora_coordinator.io.metrics import Telemetry
from dora_coordinator.io.service import Service
from dora_coordinator.settings import Settings
from dora_coordinator.telemetry.families import families
from dora_coordinator.telemetry.otlp import MetricSender, SpanSender
from dora_coordinator.telemetry.spans import SpanBegun, SpanEnded, SpanReports

SNAPSHOT = Snapshot(
    nodes=(NodeSummary(node="a", dataflow="d", daemon="robot", status="Running", cpu_seconds=1.5),),
    edges=(
        EdgeSummary(
            dataflow="d",
            source="a/out",
            target="b/in",
            source_machine="robot",
            target_machine="robot",
            policy="drop_oldest",
            received=6,
            latency=((1024, 2), (2_000_000, 4)),
        ),
    ),
)


METRICS, TRACES = "/v1/metrics", "/v1/traces"
"""Paths of a collector."""


class Request(NamedTuple):
    """A request to the collector."""

    path: str
    body: bytes


@contextmanager
def collector(status: int = 200) -> Iterator[tuple[str, list[Request]]]:
    """A collector's HTTP endpoint; yields its address and the requests so far."""
    requests: list[Request] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            zipped = self.headers.get("Content-Encoding") == "gzip"
            requests.append(Request(self.path, gzip.decompress(body) if zipped else body))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server, served(server):
        yield f"http://127.0.0.1:{server.server_port}", requests


def send(monkeypatch: pytest.MonkeyPatch, address: str) -> bool:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=robots,site=hall")
    sender = MetricSender()
    try:
        return sender.send(families(SNAPSHOT, max_edges=10), unix_time=2.0)
    finally:
        sender.close()


def test_metrics_have_types_units_and_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as (address, requests):
        assert send(monkeypatch, address)
    (resource,) = ExportMetricsServiceRequest.FromString(requests[0].body).resource_metrics
    described = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert (described["service.name"], described["site"]) == ("robots", "hall")
    found = {metric.name: metric for metric in resource.scope_metrics[0].metrics}
    cpu = found["dora_node_cpu_seconds"]
    assert (cpu.unit, cpu.sum.is_monotonic, cpu.sum.aggregation_temporality) == ("s", True, 2)
    (point,) = cpu.sum.data_points
    assert (point.as_double, point.time_unix_nano) == (1.5, 2_000_000_000)
    assert {one.key: one.value.string_value for one in point.attributes} == {
        "dataflow": "d",
        "machine": "robot",
        "node": "a",
    }
    assert found["dora_node_up"].gauge.data_points[0].as_double == 1.0
    (latency,) = found["dora_edge_latency_seconds"].histogram.data_points
    assert (latency.count, list(latency.bucket_counts)[:7]) == (6, [2, 0, 0, 0, 0, 0, 4])
    assert latency.sum == pytest.approx(0.008, rel=0.01)
    assert "dora_link_up" not in found


def test_a_collector_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    with collector(status=400) as (address, _):
        assert not send(monkeypatch, address)


def test_spans_have_parents_times_and_errors() -> None:
    exporter = InMemorySpanExporter()
    sender = SpanSender(exporter)
    start, spawn = ("start", "d"), ("spawn", "d", "robot")
    sender.handle(
        [
            SpanBegun(start, "start", 10.0, {"dora.dataflow.id": "d"}),
            SpanBegun(spawn, "spawn", 11.0, parent=start),
            SpanEnded(spawn, 13.0, "the node crashed"),
        ]
    )
    sender.handle([SpanEnded(start, 14.0)])
    sender.close()
    child, root = exporter.get_finished_spans()
    assert (child.name, root.name, root.parent) == ("spawn", "start", None)
    assert child.parent is not None
    assert child.parent.span_id == root.context.span_id
    assert (child.end_time or 0) - (child.start_time or 0) == pytest.approx(2e9, rel=1e-6)
    assert (child.status.status_code, child.status.description) == (
        StatusCode.ERROR,
        "the node crashed",
    )
    assert root.status.status_code is StatusCode.UNSET
    assert root.attributes == {"dora.dataflow.id": "d"}


def test_open_spans_are_sent_at_the_end() -> None:
    exporter = InMemorySpanExporter()
    sender = SpanSender(exporter)
    sender.handle([SpanBegun(("start", "d"), "start", 10.0)])
    sender.close()
    assert [span.name for span in exporter.get_finished_spans()] == ["start"]


class Coordinator:
    """The part of the coordinator that `Telemetry` uses."""

    settings = Settings()

    def __init__(self) -> None:
        self.spans = SpanReports()

    async def request(self, request: GetSnapshot) -> Answer:
        return Answer(id=1, answer=SNAPSHOT)


async def export(requests: list[Request], expected: set[str]) -> None:
    """Export metrics and one span until the collector has received what is expected."""
    coordinator = Coordinator()
    telemetry = Telemetry(cast(Service, coordinator))
    coordinator.spans.report([SpanBegun(("start", "d"), "start", 10.0)])
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(telemetry.run)  # without metrics it sends the spans and ends
            if METRICS in expected:
                await wait_until_async(lambda: requests, what="metrics")
                tasks.cancel_scope.cancel()  # sends the spans that are left


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, {METRICS, TRACES}),
        ({"OTEL_METRICS_EXPORTER": "none"}, {TRACES}),
        ({"OTEL_TRACES_EXPORTER": "none"}, {METRICS}),
        ({"OTEL_SDK_DISABLED": "TRUE"}, set()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, set()),
    ],
)
def test_variables_choose_what_is_exported(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: set[str]
) -> None:
    with collector() as (address, requests):
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_METRIC_EXPORT_INTERVAL": "10"}
        for name, value in (settings | variables).items():
            monkeypatch.setenv(name, value)
        anyio.run(export, requests, expected)
    assert {request.path for request in requests} == expected
