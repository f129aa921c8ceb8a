"""Upgrade and rollback of the coordinator's service, whose new version may not start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.cluster.machine_facts import machine_facts

from dora_cli.bundle.install import Installer
from dora_cli.cluster.coordinator import queries
from dora_cli.cluster.coordinator.service import CoordinatorMachine, CoordinatorService
from dora_cli.cluster.coordinator.service_upgrade import (
    roll_back_service,
    service_versions,
    upgrade_service,
)
from dora_cli.cluster.decisions.coordinator_unit import unit_version
from dora_cli.cluster.decisions.preflight import NotReady
from dora_cli.cluster.decisions.rollback_plan import Versions
from dora_cli.ssh import Connection, Finished
from dora_config.cluster.models import Cluster, Coordinator, Machine

OLD, NEW = "0.1.0", "0.2.0"


class FakeHost(CoordinatorMachine):
    """Stores are copied as ``copy``; programs print the old version."""

    def __init__(self) -> None:
        cluster = Cluster(coordinator=Coordinator(addr="10.0.0.1"), machines=())
        machine = Machine(id="coordinator", host="station")
        programs = SimpleNamespace(
            check=lambda *_, **__: "", run=lambda *_: Finished(0, f"dora {OLD}\n", "")
        )
        super().__init__(cluster, machine, cast(Connection, programs))
        self.calls: list[str] = []

    def call(self, command: str, **options: Any) -> dict[str, Any]:
        self.calls.append(command)
        return {"copy": "copy"}


class FakeService(CoordinatorService):
    """Files in memory; ``broken``: a version that does not answer."""

    def __init__(self, broken: str = "") -> None:
        self.machine = FakeHost()
        super().__init__(self.machine, machine_facts(), user=False)
        self._broken = broken
        self.running = OLD
        self.files = {self.unit: self.render(["python", "-m", "dora"], OLD).encode()}

    def text(self) -> str:
        return self.files[self.unit].decode()

    def read(self, path: str) -> bytes | None:
        return self.files.get(path)

    def write(self, path: str, content: bytes, *, mode: int = 0o644) -> None:
        self.files[path] = content

    def replace_files_and_restart(
        self,
        files: Mapping[str, bytes | None],
        *,
        linger: bool = False,
        before_restart: Callable[[], None] = lambda: None,
    ) -> None:
        self.files.update({path: content for path, content in files.items() if content})
        version = unit_version(self.text())
        self.running = "" if version == self._broken else version

    def stop(self) -> None:
        self.running = ""

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        if not condition():
            raise NotReady(f"the service {what}")

    def report(self, _: Cluster) -> Any:
        coordinator = SimpleNamespace(release=self.running)
        return SimpleNamespace(coordinator=coordinator) if self.running else None


def upgrade(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "fetch_report", service.report)
    upgrade_service(service, cast(Installer, None), OLD, NEW)


def test_an_upgrade_is_rolled_back_once(monkeypatch: pytest.MonkeyPatch) -> None:
    service = FakeService()
    upgrade(service, monkeypatch)
    assert (service.running, unit_version(service.text())) == (NEW, NEW)
    assert service_versions(service, NEW) == Versions(NEW, OLD, there=(NEW, OLD))
    assert roll_back_service(service, NEW)
    assert (service.running, unit_version(service.text())) == (OLD, OLD)
    assert service_versions(service, OLD).returned
    assert not roll_back_service(service, OLD)


def test_a_failed_upgrade_restores_unit_and_store(monkeypatch: pytest.MonkeyPatch) -> None:
    service = FakeService(broken=NEW)
    expected = rf"^dora {NEW} could not replace .*{OLD}, is started again: the service does not run"
    with pytest.raises(NotReady, match=expected):
        upgrade(service, monkeypatch)
    assert (service.running, unit_version(service.text())) == (OLD, OLD)
    assert service.machine.calls == ["coordinator.copy_store", "coordinator.restore_store"]
    assert service_versions(service, OLD) == Versions(OLD, there=(OLD,))
