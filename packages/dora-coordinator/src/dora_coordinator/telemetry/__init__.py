"""Metrics and spans of a cluster for other systems: OpenMetrics and OpenTelemetry."""
