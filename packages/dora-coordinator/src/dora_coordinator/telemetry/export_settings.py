"""Whether metrics and traces are exported: the variables of OpenTelemetry, and its SDK."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final

from dora_config.installation import extra_command

ENDPOINTS: Final = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
)
_EXPORTER: Final = "opentelemetry.exporter.otlp.proto.http"


def endpoint_variable(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the variable that names a collector; None if nothing is to be exported."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    return next(filter(environ.get, ENDPOINTS), None)


def export_problem(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return why a coordinator of this installation exports nothing, although it should."""
    variable = endpoint_variable(environ)
    return None if variable is None or _is_installed() else not_exported(variable)


def not_exported(variable: str) -> str:
    """Return the sentence about an installation without OpenTelemetry."""
    return (
        f"{variable} is set, but the coordinator does not export metrics and traces: its"
        f" installation lacks OpenTelemetry: {extra_command('dora-coordinator', 'otel')}, and start"
        " the coordinator again, or let the collector scrape /metrics"
    )


def _is_installed() -> bool:
    try:
        return find_spec(_EXPORTER) is not None
    except ImportError:  # a parent package is missing
        return False
