"""The export of metrics while the exporter raises errors."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import anyio
import pytest

from dora_config.protocol.snapshot import Snapshot
from dora_coordinator.io import metrics
from dora_coordinator.io.metrics import Telemetry
from dora_coordinator.io.service import Service
from dora_coordinator.settings import Settings

if TYPE_CHECKING:
    from dora_coordinator.telemetry.otlp import MetricSender


def test_an_error_of_the_exporter_does_not_end_the_export(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    results: list[bool | Exception] = [
        ConnectionError("no collector"),
        ConnectionError("no collector"),
        False,
        True,
        ValueError("a defect"),
        True,
    ]

    def send(*_: object) -> bool:
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    async def run() -> None:
        telemetry = Telemetry(cast(Service, SimpleNamespace(settings=Settings())))
        telemetry._interval = 0.001
        sender = cast("MetricSender", SimpleNamespace(send=send))
        with anyio.fail_after(30), anyio.CancelScope() as export:

            async def snapshot(_: Service) -> Snapshot:
                if not results:
                    export.cancel()
                return Snapshot(time=1.0)

            monkeypatch.setattr(metrics, "take_snapshot", snapshot)
            await telemetry._export(sender)

    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    with caplog.at_level(logging.INFO, "dora.coordinator"):
        anyio.run(run)
    cannot, again = "metrics cannot be exported; retrying", "metrics are exported again"
    assert caplog.messages == [cannot, again, cannot, again]
    assert "ConnectionError: no collector" in caplog.text
