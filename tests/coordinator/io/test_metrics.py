"""`GET /metrics` with a real Prometheus, and the export of a coordinator process."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.fleets.coordinator import free_port, running_coordinator, token_file
from support.fleets.daemons import RealFleet, counting, real_fleet
from support.requirements import require_installed
from support.waiting import wait_until
from support.workspace import Workspace

from dora_config.control_plane import authority_certificate

pytestmark = pytest.mark.integration

ROBOT: dict[str, object] = {"machine": "robot"}
RATE = "rate(dora_edge_received_messages_total[10s])"
QUANTILE = "histogram_quantile(0.99, dora_edge_latency_seconds_bucket)"


@contextmanager
def prometheus(folder: Path, config: dict[str, object]) -> Iterator[int]:
    """Run Prometheus; yield its port."""
    port = free_port()
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def query(port: int, path: str, **arguments: str) -> Any:
    """Return the `data` of Prometheus' answer; None while it does not listen."""
    address = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
    with suppress(OSError), urllib.request.urlopen(address, timeout=5) as answer:
        return json.load(answer)["data"]
    return None


def scraped(port: int, expression: str) -> list[tuple[dict[str, str], float]]:
    """Return labels and values of an expression."""
    found = query(port, "query", query=expression)
    results = [] if found is None else found["result"]
    return [(one["metric"], float(one["value"][1])) for one in results]


def config(fleet: RealFleet, **job: object) -> dict[str, object]:
    """The configuration that docs/howto/observability.md shows."""
    authority = fleet.workspace.path / "ca.pem"
    authority.write_text(
        ssl.DER_cert_to_PEM_cert(authority_certificate(fleet.coordinator.endpoint))
    )
    return {
        "scrape_configs": [
            {
                "job_name": "dora",
                "scheme": "https",
                "authorization": {"credentials_file": str(token_file())},
                "tls_config": {"ca_file": str(authority), "server_name": "dora-coordinator"},
                "static_configs": [{"targets": [f"127.0.0.1:{fleet.port}"]}],
                "scrape_interval": "1s",
                **job,
            }
        ]
    }


def test_prometheus_scrapes_nodes_and_edges(workspace: Workspace) -> None:
    require_installed("prometheus")
    with (
        real_fleet(workspace, "robot") as fleet,
        prometheus(workspace.path, config(fleet)) as port,
    ):
        fleet.start(counting(workspace, counter=ROBOT, collector=ROBOT), "--name", "a")
        wait_until(
            lambda: any(rate > 0 for _, rate in scraped(port, RATE)), what="a rate of an edge"
        )
        ((labels, _),) = scraped(port, "dora_edge_sent_messages_total")
        assert {key: labels[key] for key in ("dataflow", "source", "target")} == {
            "dataflow": "a",
            "source": "counter/count",
            "target": "collector/count",
        }
        ((_, latency),) = scraped(port, QUANTILE)
        assert 0 < latency < 10
        assert [value for _, value in scraped(port, 'up{job="dora"}')] == [1.0]
        assert len(scraped(port, "dora_node_up == 1")) == 2
        types = query(port, "metadata")
        assert types["dora_edge_latency_seconds"][0]["type"] == "histogram"
        assert types["dora_node_cpu_seconds"][0]["type"] == "counter"
        assert types["dora_node_memory_bytes"][0]["unit"] == "bytes"


def test_metrics_need_the_token() -> None:
    with running_coordinator() as coordinator:
        refused = coordinator.request("/metrics", headers={})
        assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
        reply = coordinator.request("/metrics")
        assert reply.headers["content-type"].startswith("application/openmetrics-text")
        assert reply.body.endswith(b"# EOF\n")
        assert coordinator.request("/metrics", method="POST").status == 405


def test_an_unreachable_collector_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with running_coordinator() as coordinator:
        coordinator.process.wait_for("metrics are not accepted")
        assert coordinator.request("/metrics").status == 200


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hidden = tmp_path / "opentelemetry"
    hidden.mkdir()
    (hidden / "__init__.py").write_text("raise ImportError('no OpenTelemetry')\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    with running_coordinator() as coordinator:
        coordinator.process.wait_for("-m pip install 'opentelemetry-exporter-otlp")
