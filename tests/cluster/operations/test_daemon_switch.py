"""Upgrades and rollbacks whose connection breaks before or after each command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, NoReturn

import pytest
from support.cluster.scripted_machine import ScriptedMachine

from dora_cli.coordinator.errors import CoordinatorBusy
from dora_cluster.bundle.install import Installer, probe
from dora_cluster.bundle.layout import Layout
from dora_cluster.connection import MachineConnection
from dora_cluster.coordinator import queries
from dora_cluster.decisions.preflight import NotReady
from dora_cluster.errors import Unreachable
from dora_cluster.machines import remote_machine
from dora_cluster.operations import steps, upgrade as upgrade_module, version_rollout
from dora_cluster.operations.steps import VersionSwitch
from dora_cluster.operations.upgrade import roll_back, upgrade_cluster
from dora_cluster.operations.version_rollout import (
    VersionRollOut,
    Waves,
    waves_of,
)
from dora_config.cluster.fleet import Rollout
from dora_config.cluster.models import Cluster, Coordinator, Machine
from dora_config.protocol.control import ClusterReport
from dora_config.protocol.envelope import ProgramVersion
from dora_config.protocol.snapshot import DaemonSummary, NodeSummary

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
        self, machine: MachineConnection, layout: Layout, report: Callable[[str], None]
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
    monkeypatch.setattr(upgrade_module, "SETTLE_TIMEOUT", 0.0)
    monkeypatch.setattr(queries, "fetch_nodes", lambda _cluster: {})
    monkeypatch.setattr(queries, "operators_pause", lambda _cluster: None)

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
    return upgrade_cluster(CLUSTER, InstalledAlready(), CLUSTER.machines, Waves(Rollout()))


def rollback() -> bool:
    return roll_back(CLUSTER, CLUSTER.machines, Waves(Rollout()), to=None)


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


# ------------------------------------------------------------------------- waves and holds


def arm(held: str | None) -> NodeSummary:
    return NodeSummary(
        node="arm",
        status="Running",
        pid=7,
        daemon="robot",
        dataflow="0" * 32,
        dataflow_name="drive",
        held=held,
    )


@pytest.mark.parametrize("released", [False, True])
def test_a_machine_whose_node_holds_updates_is_waited_for(
    make_machine: MakeMachine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    released: bool,
) -> None:
    machine = make_machine(cut_at=0)
    monkeypatch.setattr(version_rollout, "POLL_INTERVAL", 0.0)
    reports: list[str | None] = ["arm is moving"] * 6
    if released:
        reports += [None]

    def fetch(_: Cluster) -> dict[tuple[str, str], NodeSummary]:
        node = arm(reports.pop(0) if len(reports) > 1 else reports[0])
        return {(node.dataflow, node.node): node}

    monkeypatch.setattr(queries, "fetch_nodes", fetch)
    waves = Waves(Rollout(deadline=300.0 if released else 0.1))
    done = upgrade_cluster(CLUSTER, InstalledAlready(), CLUSTER.machines, waves)
    printed = capsys.readouterr().out
    held = 'node "arm" of dataflow "drive" holds updates: arm is moving'
    assert f"s: {held}\n" in printed
    assert done == released
    if not released:
        assert f"FAILED: not changed within 0.1 s: {held} (--force changes it at once)" in printed
    require(machine, NEW if released else OLD)
    monkeypatch.setattr(queries, "fetch_nodes", lambda _: {("0" * 32, "arm"): arm("always")})
    forced = Waves(Rollout(), force=True)
    assert upgrade_cluster(CLUSTER, InstalledAlready(), CLUSTER.machines, forced)
    require(machine, NEW)


MANY = Cluster(
    coordinator=Coordinator(addr="10.0.0.1"),
    machines=tuple(Machine(id=name, host=f"10.0.0.{name[1]}") for name in ("r1", "r2", "r3", "r4")),
)


class FakeSwitch(VersionSwitch):
    """The switch of a machine that is always healthy."""

    WHAT, ANSWER, REMEDY = "daemon", "connect", "run it again"
    layout = None

    def __init__(self, remote: remote_machine.RemoteMachine, _: object) -> None:
        super().__init__(remote.machine.id, OLD)
        self.remote, self.new, self.running = remote, NEW, OLD

    def prepare(self) -> bool:
        return True

    def release(self) -> str:
        return self.running

    def replace(self) -> None:
        self.running = NEW

    def restore(self) -> None:
        self.running = OLD

    def last_lines(self) -> Sequence[str]:
        return ()

    def unready(self, *_: object) -> str:
        return ""

    undo = check = lambda _: None


@pytest.mark.parametrize(
    ("rollout", "faults", "touched", "stopped"),
    [
        (None, {"r2": "failed"}, ["r1", "r2"], "r3, r4"),
        (None, {"r2": "off"}, ["r1", "r2", "r3", "r4"], None),
        (Rollout(first=("r3",), then=1), {}, ["r3", "r1", "r2", "r4"], None),
        (Rollout(first=("r3",)), {"r3": "failed"}, ["r3"], "r1, r2, r4"),
        (Rollout(first=("r3",)), {"r3": "off"}, ["r3"], "r1, r2, r4"),
        (Rollout(then=2, max_failed=2), {"r1": "failed"}, ["r1", "r2", "r3", "r4"], None),
        (Rollout(then=2), {"r2": "failed"}, ["r1", "r2"], "r3, r4"),
    ],
)
def test_a_version_reaches_the_machines_in_waves(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rollout: Rollout | None,
    faults: dict[str, str],
    touched: list[str],
    stopped: str | None,
) -> None:
    reached: list[str] = []

    class Switch(FakeSwitch):
        def prepare(self) -> bool:
            reached.append(self.place)
            match faults.get(self.place):
                case "failed":
                    raise NotReady("its disk is full")
                case "off":
                    raise Unreachable(self.place, "no answer")
            return True

    monkeypatch.setattr(version_rollout, "DaemonSwitch", Switch)
    monkeypatch.setattr(queries, "operators_pause", lambda _: None)
    monkeypatch.setattr(queries, "fetch_nodes", lambda _: {})
    monkeypatch.setattr(queries, "report_if_running", lambda _: None)
    monkeypatch.setattr(remote_machine, "connect_to", lambda _: nullcontext(None))
    cluster = MANY if rollout is None else MANY.model_copy(update={"rollout": rollout})
    waves = waves_of(cluster, keep_going=False, force=False)

    def switch(waves: Waves) -> VersionRollOut:
        label, nothing = (lambda machine: machine.id), (lambda *_: None)
        roll_out = VersionRollOut(cluster, MANY.machines, label, nothing, waves)
        assert roll_out.run() == roll_out.is_complete
        return roll_out

    done = switch(waves)
    printed = capsys.readouterr().out
    size = rollout.batch_size(4) if rollout is not None else 1
    assert (sorted(reached) if size > 1 else reached) == (sorted(touched) if size > 1 else touched)
    assert done.is_complete == (not faults)
    assert done.gave_up == (stopped is not None)
    at_once = rollout is not None and rollout.max_failed == len(faults)
    succeeded = [] if at_once else [name for name in touched if name not in faults]
    assert done.succeeded == sorted(succeeded)
    assert f"{len(succeeded)}/4 succeeded." in printed
    if stopped is not None:
        assert f"Stopped there; not touched: {stopped} (--keep-going continues)\n" in printed
    if size > 1 and "r1" in touched:
        assert "r1 | r1..." in printed
    again = Waves(waves.rollout, keep_going=True)
    reached.clear()
    switch(again)
    assert sorted(reached) == ["r1", "r2", "r3", "r4"]


def test_a_machine_that_does_not_stay_healthy_is_returned(
    make_machine: MakeMachine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The node is killed while the machine is watched."""
    machine = make_machine(cut_at=0)
    monkeypatch.setattr(version_rollout, "POLL_INTERVAL", 0.0)
    pids = iter(range(1, 10_000))

    def fetch(_: Cluster) -> dict[tuple[str, str], NodeSummary]:
        node = arm(None)
        if machine.release == NEW and "Its dataflows... OK" in seen():
            node = node.model_copy(update={"pid": next(pids), "restarts": 1})
        return {(node.dataflow, node.node): node}

    printed: list[str] = []

    def seen() -> str:
        printed.append(capsys.readouterr().out)
        return "".join(printed)

    monkeypatch.setattr(queries, "fetch_nodes", fetch)
    waves = Waves(Rollout(healthy=0.1, deadline=0.3, on_failure="rollback"))
    assert not upgrade_cluster(CLUSTER, InstalledAlready(), CLUSTER.machines, waves)
    assert "not healthy within 0.3 s: its nodes were restarted" in seen()
    assert "Return to 0.1.0... OK" in seen()
    require(machine, OLD)


@pytest.mark.parametrize("on_failure", ["rollback", "pause"])
def test_a_failed_roll_out_returns_the_machines_that_it_reached(
    monkeypatch: pytest.MonkeyPatch, on_failure: Literal["rollback", "pause"]
) -> None:
    returned: list[dict[str, str]] = []

    def run(self: VersionRollOut) -> bool:
        self.before, self.gave_up = {"r1": OLD, "r2": ""}, True
        return False

    monkeypatch.setattr(upgrade_module, "require_startable", lambda *_: None)
    monkeypatch.setattr(queries, "report_if_running", lambda _: None)
    monkeypatch.setattr(upgrade_module, "SETTLE_TIMEOUT", 0.0)
    monkeypatch.setattr(upgrade_module, "_check", lambda *_: {})
    monkeypatch.setattr(upgrade_module, "_upgrade_coordinator", lambda *_, **__: None)
    monkeypatch.setattr(VersionRollOut, "run", run)
    monkeypatch.setattr(
        upgrade_module, "return_machines", lambda _, targets, __: returned.append(targets)
    )
    waves = Waves(Rollout(on_failure=on_failure))
    assert not upgrade_cluster(MANY, InstalledAlready(), MANY.machines, waves)
    assert returned == ([{"r1": OLD}] if on_failure == "rollback" else [])
