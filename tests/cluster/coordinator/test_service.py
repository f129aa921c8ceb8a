"""Variables of OpenTelemetry for the coordinator's service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import pytest
from support.cluster.machine_facts import machine_facts

from dora_cluster.connection import MachineConnection
from dora_cluster.coordinator import installation as module
from dora_cluster.coordinator.place import CoordinatorMachine
from dora_cluster.coordinator.service import CoordinatorService
from dora_config.cluster.models import Cluster, Coordinator, Machine
from dora_coordinator.telemetry import export_settings

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"


class FakeService(CoordinatorService):
    """Files in memory."""

    def __init__(self, *, remote: bool = False, dora: str | None = None) -> None:
        coordinator = Coordinator(addr="10.0.0.1", host="station" if remote else None, dora=dora)
        cluster = Cluster(coordinator=coordinator, machines=(Machine(id="robot", host="10.0.0.9"),))
        machine = Machine(id="coordinator", host="station", dora=dora)
        host = CoordinatorMachine(cluster, machine, cast(MachineConnection, None))
        self.files: dict[str, bytes | None] = {}
        super().__init__(host, machine_facts(), user=False)

    def read(self, path: str) -> bytes | None:
        return self.files.get(path)

    def write(self, path: str, content: bytes, *, mode: int = 0o644) -> None:
        self.files[path] = content

    def is_active(self) -> bool:
        return bool(self.files)

    def enable(self) -> None: ...

    def replace_files_and_restart(
        self,
        files: Mapping[str, bytes | None],
        *,
        linger: bool = False,
        before_restart: Callable[[], None] = lambda: None,
    ) -> None:
        self.files.update(files)


def test_the_variables_are_stored_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    service = FakeService()
    assert service.install("unit", "token") == "OK"
    assert service.environment not in service.files
    monkeypatch.setenv(ENDPOINT, "http://collector:4318")
    monkeypatch.setenv(HEADERS, 'key="a$b"')
    assert service.install("unit", "token") == "OK"
    stored = (
        b'OTEL_EXPORTER_OTLP_ENDPOINT="http://collector:4318"\n'
        b'OTEL_EXPORTER_OTLP_HEADERS="key=\\"a\\$b\\""\n'
    )
    assert service.files[service.environment] == stored
    assert service.install("unit", "token") == "runs already"
    monkeypatch.delenv(ENDPOINT)
    monkeypatch.delenv(HEADERS)
    assert service.install("unit", "token") == "runs already"
    assert service.files[service.environment] == stored
    text = service.render(["dora", "coordinator"], "0.2.0")
    assert f"EnvironmentFile=-{service.environment}\n" in text
    assert "collector" not in text


@pytest.mark.parametrize(("dora", "stored"), [(None, False), ("/opt/own/bin/dora", True)])
def test_a_copy_of_dora_elsewhere_gets_no_variables(
    monkeypatch: pytest.MonkeyPatch, dora: str | None, stored: bool
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://collector:4318")
    service = FakeService(remote=True, dora=dora)
    service.install("unit", "token")
    assert (service.environment in service.files) is stored
    problem = module._export_problem(service.host.cluster)
    if stored:
        assert problem is None
    else:
        assert problem is not None
        assert "on station runs from a copy of dora without OpenTelemetry" in problem


@pytest.mark.parametrize("installed", [False, True])
def test_a_service_here_exports_if_this_installation_can(
    monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    cluster = FakeService().host.cluster
    assert module._export_problem(cluster) is None
    monkeypatch.setenv(ENDPOINT, "http://collector:4318")
    monkeypatch.setattr(export_settings, "_is_installed", lambda: installed)
    assert (module._export_problem(cluster) is None) is installed
