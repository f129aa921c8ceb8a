"""One `rollout` block gives the same course to `dora cluster apply` and `dora cluster upgrade`."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import groupby
from typing import Any

import pytest
from cluster.operations.test_daemon_switch import MANY, NEW, OLD, FakeSwitch
from coordinator.fleet.test_fleet import apply, on, report
from support.simulation.fleets import SimulatedFleet

from dora_cli.coordinator.errors import CoordinatorLost, RequestFailed
from dora_cluster.coordinator import queries
from dora_cluster.decisions.preflight import NotReady
from dora_cluster.machines import remote_machine
from dora_cluster.operations import version_rollout
from dora_cluster.operations.version_rollout import VersionRollOut, Waves
from dora_config.cluster.fleet import Rollout
from dora_config.protocol.fleet import Checked, CheckMachine
from dora_coordinator.queries import queries as coordinator_queries
from dora_coordinator.settings import Settings
from dora_coordinator.state.commands import Command, RequestRefused
from dora_coordinator.state.events import FleetStep

Course = list[tuple[str, list[str]]]
"""What happens, and on which machines at the same time."""


@pytest.fixture(autouse=True)
def reachable_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A coordinator without nodes, and machines whose switches are fakes."""
    monkeypatch.setattr(remote_machine, "connect_to", lambda _: nullcontext(None))
    monkeypatch.setattr(queries, "operators_pause", lambda _: None)
    monkeypatch.setattr(queries, "fetch_nodes", lambda _: {})
    monkeypatch.setattr(queries, "report_if_running", lambda _: None)


def course_of(steps: list[tuple[str, str]]) -> Course:
    """Join steps of the same kind that follow each other."""
    grouped = groupby(steps, key=lambda one: one[0])
    return [(kind, sorted(machine for _, machine in same)) for kind, same in grouped]


class WatchedFleet(SimulatedFleet):
    """Notes the steps of roll-outs."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, str]] = []
        super().__init__(Settings(fleet_checks=1))

    def _execute(self, command: Command) -> None:
        if isinstance(command, FleetStep):
            kind = "check" if command.kind == "check" else "change"
            self.steps.append((kind, command.copy.removeprefix("drive@")))
        super()._execute(command)


def applied(monkeypatch: pytest.MonkeyPatch, rollout: Rollout, failing: str) -> tuple[Course, str]:
    async def check(request: CheckMachine) -> Checked:
        if request.machine == failing:
            raise RequestRefused("failed", "check: exit code 1: too hot")
        return Checked()

    monkeypatch.setattr(coordinator_queries, "check", check)
    fleet = WatchedFleet()
    for machine in MANY.machines:
        fleet.add_daemon(machine.id, machine.id)
    fleet.settle()
    apply(fleet, on("drive", *(one.id for one in MANY.machines)), rollout=rollout)
    fleet.pass_time(300)
    return course_of(fleet.steps), report(fleet).outcome


class Clock:
    """A clock that runs only while it is slept."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def upgraded(
    monkeypatch: pytest.MonkeyPatch, rollout: Rollout, failing: str
) -> tuple[Course, list[str]]:
    steps: list[tuple[str, str]] = []

    class Switch(FakeSwitch):
        def finish(self) -> None:
            steps.append(("change", self.place))
            super().finish()

    def check(_: Any, request: CheckMachine) -> None:
        assert request.version == NEW
        steps.append(("check", request.machine))
        if request.machine == failing:
            raise RequestFailed("check: exit code 1: too hot", "failed")

    monkeypatch.setattr(version_rollout, "DaemonSwitch", Switch)
    monkeypatch.setattr(version_rollout, "time", Clock())
    monkeypatch.setattr(queries, "check_machine", check)
    label, nothing = (lambda one: one.id), (lambda *_: None)
    roll_out = VersionRollOut(MANY, MANY.machines, label, nothing, Waves(rollout))
    roll_out.run()
    return course_of(steps), roll_out.succeeded


@pytest.mark.parametrize("failing", ["", "r1", "r4"])
@pytest.mark.parametrize(
    "rollout",
    [
        Rollout(check="true"),
        Rollout(check="true", then=1),
        Rollout(check="true", first=("r3",), then="50%"),
        Rollout(check="true", first=("r4", "r2"), then=1, max_failed=2),
        Rollout(first=("r2",), then=2),
    ],
)
def test_both_change_and_check_the_same_machines_in_the_same_order(
    monkeypatch: pytest.MonkeyPatch, rollout: Rollout, failing: str
) -> None:
    course, outcome = applied(monkeypatch, rollout, failing)
    other, succeeded = upgraded(monkeypatch, rollout, failing)
    assert course == other
    fails = failing != "" and rollout.check is not None
    assert ("fail" in outcome) == fails
    assert (failing in succeeded) == (failing != "" and not fails)
    assert fails or len(succeeded) == len(MANY.machines)


def test_an_upgrade_waits_while_it_is_paused_or_the_coordinator_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pause = "the fleet was paused by ann@desk"
    lost = CoordinatorLost("no answer")
    pauses = [None, lost, None, pause, pause, lost, pause, None]
    upgraded_while: list[str | CoordinatorLost | None] = []
    monkeypatch.setattr(queries, "require_coordinator", lambda _: None)
    waves = Waves(Rollout(then=1))

    def paused(_: Any) -> str | None:
        found = pauses.pop(0) if len(pauses) > 1 else pauses[0]
        upgraded_while.append(found)
        if isinstance(found, CoordinatorLost):
            raise found
        return found

    class Switch(FakeSwitch):
        def finish(self) -> None:
            assert upgraded_while[-1] is None
            super().finish()

    monkeypatch.setattr(version_rollout, "DaemonSwitch", Switch)
    monkeypatch.setattr(version_rollout, "time", Clock())
    monkeypatch.setattr(queries, "operators_pause", lambda _: pause)
    with pytest.raises(NotReady, match="paused by ann@desk; run `dora cluster resume` first"):
        version_rollout.require_startable(MANY, waves)
    monkeypatch.setattr(queries, "operators_pause", paused)
    label = MANY.machines[0].id
    assert VersionRollOut(MANY, MANY.machines, lambda _: label, lambda *_: None, waves).run()
    printed = capsys.readouterr().out
    assert "Waiting up to 300 s: the coordinator gave no report: no answer\n" in printed
    assert printed.count(f"{pause}; `dora cluster resume` continues\n") == 1


def test_ctrl_c_returns_the_machines_that_are_watched(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that was healthy already keeps the version."""
    switches: list[FakeSwitch] = []

    class Switch(FakeSwitch):
        def finish(self) -> None:
            switches.append(self)
            super().finish()

    class Interrupted(Clock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if len(switches) == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr(version_rollout, "DaemonSwitch", Switch)
    monkeypatch.setattr(version_rollout, "time", Interrupted())
    waves = Waves(Rollout(first=("r1",), then=2, healthy=3.0))
    roll_out = VersionRollOut(MANY, MANY.machines, lambda one: one.id, lambda *_: None, waves)
    with pytest.raises(KeyboardInterrupt):
        roll_out.run()
    assert {one.place: one.running for one in switches} == {"r1": NEW, "r2": OLD, "r3": OLD}
    printed = capsys.readouterr().out
    assert "r2 |   Interrupted: returning to 0.1.0; a second Ctrl-C leaves it as it is" in printed
