"""`GET /metrics`, and the export to an OpenTelemetry collector."""

from __future__ import annotations

import logging
import os
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from dora_config.protocol.control import Answer, GetSnapshot
from dora_config.protocol.snapshot import Snapshot
from dora_coordinator.io.service import Service
from dora_coordinator.telemetry.export_settings import endpoint_variable, not_exported
from dora_coordinator.telemetry.families import families

if TYPE_CHECKING:
    from dora_coordinator.telemetry.otlp import MetricSender, SpanSender

METRICS_PATH: Final = "/metrics"
INTERVAL_VARIABLE: Final = "OTEL_METRIC_EXPORT_INTERVAL"
CLOSE_SECONDS: Final = 2.0
"""Seconds to export the remaining data when the coordinator ends."""

logger = logging.getLogger("dora.coordinator")


class MetricsRoute:
    """Snapshots as OpenMetrics text; a snapshot that is requested again is not written again."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._lock = anyio.Lock()
        self._last: tuple[float, bytes] = (0.0, b"")

    def routes(self) -> list[Route]:
        return [Route(METRICS_PATH, self.get, methods=["GET"])]

    async def get(self, request: Request) -> Response:
        from dora_coordinator.telemetry import openmetrics

        snapshot = await take_snapshot(self._service)
        if snapshot is None:
            return PlainTextResponse("the coordinator is ending or restarting\n", 503)
        async with self._lock:
            if self._last[0] != snapshot.time:
                max_edges = self._service.settings.metrics_edges

                def write() -> bytes:
                    return openmetrics.openmetrics(families(snapshot, max_edges=max_edges))

                # in a thread: it takes a second for 10,000 nodes
                self._last = (snapshot.time, await anyio.to_thread.run_sync(write))
        return Response(self._last[1], media_type=openmetrics.CONTENT_TYPE)


async def take_snapshot(service: Service) -> Snapshot | None:
    """Return a snapshot of the whole cluster; None while the coordinator cannot answer."""
    answer = await service.request(GetSnapshot())
    if isinstance(answer, Answer) and isinstance(answer.answer, Snapshot):
        return answer.answer
    return None


class Telemetry:
    """Sends metrics and spans if a collector is configured in the environment."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._metrics: MetricSender | None = None
        self._spans: SpanSender | None = None
        self._interval = 60.0
        variable = endpoint_variable()
        if variable is None:
            return
        try:
            from dora_coordinator.telemetry.otlp import MetricSender, SpanSender
        except ImportError as error:
            logger.warning("%s (%s)", not_exported(variable), error)
            return
        self._interval = _interval()
        if os.environ.get("OTEL_METRICS_EXPORTER", "otlp") == "otlp":
            self._metrics = MetricSender()
        if os.environ.get("OTEL_TRACES_EXPORTER", "otlp") == "otlp":
            self._spans = SpanSender()
            service.spans.handle = self._spans.handle

    async def run(self) -> None:
        """Export until cancelled."""
        try:
            if self._metrics is not None:
                await self._export(self._metrics)
        finally:
            with anyio.move_on_after(CLOSE_SECONDS, shield=True):
                closing = [one for one in (self._metrics, self._spans) if one is not None]
                for sender in closing:
                    await anyio.to_thread.run_sync(sender.close, abandon_on_cancel=True)

    async def _export(self, sender: MetricSender) -> None:
        failed = False
        while True:
            await anyio.sleep(self._interval)
            snapshot = await take_snapshot(self._service)
            if snapshot is None:
                continue
            try:
                sent = await anyio.to_thread.run_sync(
                    partial(_send, sender, snapshot, self._service.settings.metrics_edges),
                    abandon_on_cancel=True,
                )
            except Exception:  # a defect in the export must not end the coordinator of a fleet
                if not failed:
                    logger.exception("metrics cannot be exported; retrying")
                failed = True
                continue
            if sent == failed:
                log = logger.info if sent else logger.warning
                log("metrics are %s", "exported again" if sent else "not accepted; retrying")
            failed = not sent


def _send(sender: MetricSender, snapshot: Snapshot, max_edges: int) -> bool:
    return sender.send(families(snapshot, max_edges=max_edges), snapshot.time)


def _interval() -> float:
    """Return the seconds between two exports."""
    given = os.environ.get(INTERVAL_VARIABLE, "60000")
    if given.isdecimal() and int(given) > 0:
        return int(given) / 1000
    logger.warning("%s=%s: expected milliseconds; using 60000", INTERVAL_VARIABLE, given)
    return 60.0
