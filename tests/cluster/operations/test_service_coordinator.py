"""Upgrade and rollback of the coordinator's service, whose new version may not start."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.cluster.machine_facts import machine_facts

from dora_cluster.bundle.install import Installer
from dora_cluster.connection import FinishedCommand, MachineConnection
from dora_cluster.coordinator import queries
from dora_cluster.coordinator.place import CoordinatorMachine
from dora_cluster.coordinator.service import CoordinatorService
from dora_cluster.decisions.preflight import NotReady
from dora_cluster.decisions.units import unit_version
from dora_cluster.decisions.versions import Versions
from dora_cluster.operations import coordinator_switch, steps
from dora_cluster.operations.coordinator_switch import (
    coordinator_versions,
    roll_back_coordinator,
    upgrade_coordinator,
)
from dora_config.cluster.models import Cluster, Coordinator, Machine

OLD, NEW = "0.1.0", "0.2.0"


class FakeHost(CoordinatorMachine):
    """Stores are copied as ``copy``; programs print the old version."""

    def __init__(self) -> None:
        cluster = Cluster(
            coordinator=Coordinator(addr="10.0.0.1"),
            machines=(Machine(id="robot", host="10.0.0.9"),),
        )
        machine = Machine(id="coordinator", host="station")
        programs = SimpleNamespace(
            name="station",
            check=lambda *_, **__: "",
            run=lambda *_: FinishedCommand(0, f"dora {OLD}\n", ""),
        )
        super().__init__(cluster, machine, cast(MachineConnection, programs))
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

    def report(self, _: Cluster) -> Any:
        coordinator = SimpleNamespace(release=self.running)
        return SimpleNamespace(coordinator=coordinator) if self.running else None

    def journal(self, lines: int) -> list[str]:
        return ["it ended"]

    @contextmanager
    def installed(self, _: Cluster) -> Iterator[CoordinatorService]:
        yield self


@pytest.fixture
def make_service(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], FakeService]:
    def make(broken: str) -> FakeService:
        service = FakeService(broken)
        monkeypatch.setattr(queries, "report_if_running", service.report)
        monkeypatch.setattr(coordinator_switch, "installed_service", service.installed)
        monkeypatch.setattr(steps, "RECONNECT_TIMEOUT", 0.0)
        return service

    return make


INSTALLER = cast(Installer, SimpleNamespace(version=NEW))


def test_an_upgrade_is_rolled_back_once(make_service: Callable[[str], FakeService]) -> None:
    service = make_service("")
    cluster = service.machine.cluster
    assert upgrade_coordinator(cluster, INSTALLER)
    assert (service.running, unit_version(service.text())) == (NEW, NEW)
    assert coordinator_versions(cluster) == Versions(NEW, OLD, there=(NEW, OLD))
    assert roll_back_coordinator(cluster)
    assert (service.running, unit_version(service.text())) == (OLD, OLD)
    assert coordinator_versions(cluster) == Versions(OLD, returned=True, there=(OLD,))
    assert not roll_back_coordinator(cluster)


def test_a_failed_upgrade_restores_unit_and_store(
    make_service: Callable[[str], FakeService],
) -> None:
    service = make_service(NEW)
    cluster = service.machine.cluster
    expected = rf"^dora {NEW} did not answer .* it ended\n  \(the coordinator runs {OLD} again\)$"
    with pytest.raises(NotReady, match=re.compile(expected, re.DOTALL)):
        upgrade_coordinator(cluster, INSTALLER)
    assert (service.running, unit_version(service.text())) == (OLD, OLD)
    assert service.machine.calls == ["coordinator.copy_store", "coordinator.restore_store"]
    assert coordinator_versions(cluster) == Versions(OLD, there=(OLD,))
