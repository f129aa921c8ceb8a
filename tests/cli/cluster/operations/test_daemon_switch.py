"""Upgrades and rollbacks whose connection breaks before or after each command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from support.cluster.scripted_machine import ScriptedMachine

from dora_cli.bundle.install import Installer, probe
from dora_cli.bundle.layout import Layout
from dora_cli.cluster.coordinator import queries
from dora_cli.cluster.machines import remote_machine
from dora_cli.cluster.operations import steps, version_report
from dora_cli.cluster.operations.rollback import roll_back
from dora_cli.cluster.operations.upgrade import upgrade_cluster
from dora_cli.coordinator.errors import CoordinatorBusy
from dora_cli.ssh import Connection
from dora_config.cluster.models import Cluster, Coordinator, Machine
from dora_config.protocol.control import ClusterReport
from dora_config.protocol.envelope import ProgramVersion
from dora_config.protocol.snapshot import DaemonSummary

CLUSTER = Cluster(
    coordinator=Coordinator(addr="10.0.0.1"),
    machines=(Machine(id="robot", host="10.0.0.2", env={"COLOUR": "red"}),),
)
OLD_UNIT = "of the old version\n"
OLD, NEW = "0.1.0", "0.2.0"


class InstalledAlready(Installer):
    """The new version is on the machine already."""

    version = NEW

    def put(
        self, machine: Connection, layout: Layout, report: Callable[[str], None]
    ) -> tuple[str, dict[str, Any]]:
        facts = probe(machine, layout)
        return f"{facts['prefix']}/{NEW}-py3.11", facts


class FakeCoordinator:
    """Reports the daemon of a machine, and is of the new version itself."""

    def __init__(self, machine: ScriptedMachine) -> None:
        self._machine = machine
        self.refused = ""
        """A version whose daemon never connects."""

    def report(self, _cluster: Cluster) -> ClusterReport:
        daemons = []
        if not self._machine.is_unreachable and self._machine.release != self.refused:
            release = self._machine.release
            daemons.append(DaemonSummary(daemon="robot", machine_id="robot", release=release))
        version = ProgramVersion(program="coordinator", release=NEW)
        return ClusterReport(coordinator=version, machines=tuple(daemons), active_dataflows=0)


MakeMachine = Callable[..., ScriptedMachine]


@pytest.fixture
def make_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeMachine:
    """A machine with the old version as its service, and the new version beside it."""
    monkeypatch.setattr(steps, "RECONNECT_TIMEOUT", 0.0)
    monkeypatch.setattr(version_report, "SETTLE_TIMEOUT", 0.0)
    monkeypatch.setattr(queries, "fetch_nodes", lambda _cluster: {})

    def make(**cut: Any) -> ScriptedMachine:
        folder = tmp_path / "-".join(f"{name}{value}" for name, value in cut.items())
        folder.mkdir()
        monkeypatch.setenv("HOME", str(folder))
        machine = ScriptedMachine(folder, **cut)
        for version in (OLD, NEW):
            machine.add_version(version)
        (machine.versions / "current").symlink_to(f"{OLD}-py3.11")
        machine.unit.parent.mkdir(parents=True)
        for place in (machine.unit, folder / "loaded", folder / "active"):
            place.write_text(OLD_UNIT)
        (folder / "running").write_text(f"{OLD}-py3.11\n")
        monkeypatch.setattr(remote_machine, "connect", machine.connect)
        monkeypatch.setattr(queries, "report_if_running", FakeCoordinator(machine).report)
        return machine

    return make


def upgrade() -> bool:
    return upgrade_cluster(CLUSTER, InstalledAlready(), CLUSTER.machines, keep_going=False)


def rollback() -> bool:
    return roll_back(CLUSTER, CLUSTER.machines, to=None, keep_going=False)


def require(machine: ScriptedMachine, version: str) -> None:
    """The machine runs that version with its unit, and would after a reboot."""
    assert machine.release == version
    assert (machine.versions / "current").resolve().name == machine.running
    active = (machine.folder / "active").read_text()
    assert (active == OLD_UNIT) == (version == OLD)
    assert machine.unit.read_text() == (machine.folder / "loaded").read_text() == active
    environment = machine.folder / ".config/dora-daemon/robot.env"
    if version == NEW:
        assert environment.read_text() == 'COLOUR="red"\n'
        assert environment.stat().st_mode & 0o777 == 0o600


def count_commands(make_machine: MakeMachine, *works: Callable[[], bool]) -> int:
    """Return how many commands the last of ``works`` runs without a cut."""
    machine = make_machine(cut_at=0)
    for work in works:
        machine.count = 0
        assert work()
    return machine.count


@pytest.mark.parametrize(("after", "back"), [(False, True), (True, False)])
def test_upgrade_that_is_cut_off(
    make_machine: MakeMachine, capsys: pytest.CaptureFixture[str], after: bool, back: bool
) -> None:
    count = count_commands(make_machine, upgrade)
    assert count > 10
    for step in range(1, count + 1):
        machine = make_machine(cut_at=step, after=after, back=back)
        done = upgrade()
        out = capsys.readouterr().out
        assert machine.was_cut
        if done:  # the last command only removes unused versions
            assert step == count
        else:
            assert "FAILED: the connection broke" in out, f"{step}: {out}"
            assert "0/1 succeeded.\nWhat runs now:\n" in out
            if back:  # a reachable machine is restored at once
                require(machine, OLD)
        machine.mend()
        assert upgrade(), f"after {step}: {capsys.readouterr().out}"
        require(machine, NEW)
        for _ in range(2):
            assert rollback()
            require(machine, OLD)


@pytest.mark.parametrize(("after", "back"), [(False, True), (True, False)])
def test_rollback_that_is_cut_off(
    make_machine: MakeMachine, capsys: pytest.CaptureFixture[str], after: bool, back: bool
) -> None:
    for step in range(1, count_commands(make_machine, upgrade, rollback) + 1):
        machine = make_machine(cut_at=0, after=after, back=back, of=step)
        assert upgrade()
        machine.count, machine.cut_at = 0, step
        done = rollback()
        assert machine.was_cut
        if not done and back:
            require(machine, NEW)
        if not done and machine.release == NEW:
            machine.mend()
            assert rollback(), f"after {step}: {capsys.readouterr().out}"
        require(machine, OLD)


def test_nothing_is_switched_while_the_nodes_are_unknown(
    make_machine: MakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(_: Cluster) -> NoReturn:
        raise CoordinatorBusy("too many connections")

    machine = make_machine(cut_at=0)
    monkeypatch.setattr(queries, "fetch_nodes", busy)
    with pytest.raises(CoordinatorBusy):
        upgrade()
    require(machine, OLD)


def test_version_that_fails_after_a_cut_is_replaced_by_the_running_one(
    make_machine: MakeMachine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the second attempt the links lead to the new version already."""
    for step in range(1, count_commands(make_machine, upgrade)):
        machine = make_machine(cut_at=step, after=True)
        upgrade()
        machine.mend()
        if machine.release == NEW:
            break
        with monkeypatch.context() as patch:
            coordinator = FakeCoordinator(machine)
            coordinator.refused = NEW
            patch.setattr(queries, "report_if_running", coordinator.report)
            assert not upgrade()
        assert "Return to 0.1.0... OK" in capsys.readouterr().out, step
        require(machine, OLD)
