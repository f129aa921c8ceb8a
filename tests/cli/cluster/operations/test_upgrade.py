"""An upgrade and a rollback whose connection breaks at each command, before it or after it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.scripted_machine import ScriptedMachine

from dora_cli.bundle.install import Installer, probe
from dora_cli.bundle.layout import Layout
from dora_cli.bundle.machine import Machine as Link
from dora_cli.cluster.machines import parallel as machines
from dora_cli.cluster.operations import rollback, upgrade
from dora_cli.cluster.operations import version_report as state_left
from dora_config.cluster.models import Cluster, Coordinator, Machine

CLUSTER = Cluster(
    coordinator=Coordinator(addr="10.0.0.1"),
    machines=(Machine(id="robot", host="10.0.0.2", env={"COLOUR": "red"}),),
)
OLD_UNIT = "of the old version\n"
OLD, NEW = "0.1.0", "0.2.0"


class PutAlready(Installer):
    """The new version is on the machine; what comes before is tried elsewhere."""

    version = NEW

    def put(
        self, machine: Link, layout: Layout, report: Callable[[str], None]
    ) -> tuple[str, dict[str, Any]]:
        facts = probe(machine, layout)
        return f"{facts['prefix']}/{NEW}-py3.11", facts


Play = Callable[..., ScriptedMachine]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """A machine with the old version as its service, and the new one beside it."""
    monkeypatch.setattr(upgrade, "RECONNECT_TIMEOUT", 0.0)
    monkeypatch.setattr(upgrade, "all_nodes", lambda cluster: {})
    monkeypatch.setattr(upgrade, "upgrade_coordinator", lambda cluster, installer, version: False)
    monkeypatch.setattr(upgrade, "require_coordinator", lambda cluster: None)
    monkeypatch.setattr(rollback, "require_coordinator", lambda cluster: None)
    monkeypatch.setattr(rollback, "coordinator_versions", lambda cluster: None)
    monkeypatch.setattr(state_left, "_report", lambda cluster: None)
    monkeypatch.setattr(state_left, "SETTLE_TIMEOUT", 0.0)

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
        monkeypatch.setattr(upgrade, "connect", machine.connect)
        monkeypatch.setattr(machines, "connect", machine.connect)
        monkeypatch.setattr(
            upgrade, "_release", lambda on: "" if machine.is_silent else machine.release
        )
        return machine

    return make


def upgraded() -> bool:
    return upgrade.upgrade(CLUSTER, PutAlready(), CLUSTER.machines, keep_going=False)


def rolled_back() -> bool:
    return rollback.rollback(CLUSTER, PutAlready(), CLUSTER.machines, to=None, keep_going=False)


def require(machine: ScriptedMachine, version: str) -> None:
    """It runs that version with its unit, and so it would after a reboot."""
    assert machine.release == version
    assert (machine.versions / "current").resolve().name == machine.running
    active = (machine.folder / "active").read_text()
    assert (active == OLD_UNIT) == (version == OLD)
    assert machine.unit.read_text() == (machine.folder / "loaded").read_text() == active
    environment = machine.folder / ".config/dora-daemon/robot.env"
    if version == NEW:
        assert environment.read_text() == 'COLOUR="red"\n'
        assert environment.stat().st_mode & 0o777 == 0o600


def steps(play: Play, work: Callable[[], bool], *, prepare: Callable[[], bool] | None) -> int:
    """How many commands it takes without a cut."""
    machine = play(cut_at=0)
    if prepare is not None:
        assert prepare()
    machine.count = 0
    assert work()
    return machine.count


@pytest.mark.parametrize(("after", "back"), [(False, True), (True, False)])
def test_an_upgrade_that_is_cut_off(
    play: Play, capsys: pytest.CaptureFixture[str], after: bool, back: bool
) -> None:
    number = steps(play, upgraded, prepare=None)
    assert number > 10
    for step in range(1, number + 1):
        machine = play(cut_at=step, after=after, back=back)
        done = upgraded()
        out = capsys.readouterr().out
        assert machine.was_cut
        if done:  # the last one only tidies up
            assert step == number
        else:
            assert "FAILED: the connection broke" in out, f"{step}: {out}"
            assert "0/1 succeeded.\nWhat runs now:\n" in out
            if back:  # what can be reached is returned at once
                require(machine, OLD)
        machine.mend()
        assert upgraded(), f"after {step}: {capsys.readouterr().out}"
        require(machine, NEW)
        for _ in range(2):
            assert rolled_back()
            require(machine, OLD)


@pytest.mark.parametrize(("after", "back"), [(False, True), (True, False)])
def test_a_rollback_that_is_cut_off(
    play: Play, capsys: pytest.CaptureFixture[str], after: bool, back: bool
) -> None:
    number = steps(play, rolled_back, prepare=upgraded)
    for step in range(1, number + 1):
        machine = play(cut_at=0, after=after, back=back, of=step)
        assert upgraded()
        machine.count, machine.cut_at = 0, step
        done = rolled_back()
        assert machine.was_cut
        if not done and back:
            require(machine, NEW)
        if not done and machine.release == NEW:
            machine.mend()
            assert rolled_back(), f"after {step}: {capsys.readouterr().out}"
        require(machine, OLD)


def test_a_version_that_fails_after_a_cut_is_taken_back_to_what_ran(
    play: Play, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The links lead to the new version already when the second try begins."""
    for step in range(1, steps(play, upgraded, prepare=None)):
        machine = play(cut_at=step, after=True)
        upgraded()
        machine.mend()
        if machine.release == NEW:
            break
        with monkeypatch.context() as patch:
            patch.setattr(upgrade, "_runs", lambda on, version: version == OLD)
            assert not upgraded()
        assert "Return to 0.1.0... OK" in capsys.readouterr().out, step
        require(machine, OLD)
