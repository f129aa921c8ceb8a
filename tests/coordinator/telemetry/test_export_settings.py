"""Whether metrics and traces are exported."""

from __future__ import annotations

import pytest

from dora_coordinator.telemetry import export_settings
from dora_coordinator.telemetry.export_settings import endpoint_variable, export_problem

TRACES = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318"}


def test_the_variable_that_names_a_collector() -> None:
    assert endpoint_variable({}) is None
    assert endpoint_variable({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}) is None
    assert endpoint_variable(TRACES) == "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    assert endpoint_variable({**TRACES, "OTEL_SDK_DISABLED": "TRUE"}) is None


def test_a_missing_exporter_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    assert export_problem(TRACES) is None  # the tests have the extra
    monkeypatch.setattr(export_settings, "_EXPORTER", "opentelemetry_is_absent.exporter")
    assert export_problem({}) is None
    problem = export_problem(TRACES)
    assert problem is not None
    assert problem.startswith("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set, but the coordinator does")
    assert "-m pip install 'opentelemetry-" in problem
