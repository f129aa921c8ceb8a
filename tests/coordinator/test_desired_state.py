"""Simulated fleets under applies, power cuts, cut networks and crashes between any two writes.

Once all is quiet and connected, each machine runs what the last apply describes, once.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest
from coordinator.fleet.test_fleet import apply, on, report
from support.seeds import chunks
from support.simulation.fleets import SimulatedFleet, dataflow
from support.simulation.machines import SimulatedDaemon, SimulatedRunner

from dora_config.protocol.control import StartDataflow, Started, StopDataflow
from dora_config.protocol.fleet import DesiredDataflow, PauseFleet
from dora_coordinator.settings import Settings
from dora_coordinator.state.records import Phase

QUICK = 50
SLOW = 10_000
MACHINES = ("r1", "r2")
SETTINGS = Settings(daemon_silence_limit=1e9)
"""Without heartbeats, so that time passes in few steps."""

Programs = dict[str, str | None]


def programs_of(runner: SimulatedRunner) -> Programs:
    return {node.node.id: node.node.path for node in runner.definitions.nodes}


class History:
    """One random history of a fleet."""

    def __init__(self, seed: int) -> None:
        self.choice = random.Random(seed)
        self.fleet = SimulatedFleet(SETTINGS, codec=False)
        for machine in MACHINES:
            self.fleet.add_daemon(machine, machine)
        self.fleet.settle()
        self.desired: tuple[DesiredDataflow, ...] = ()
        self.changes = Counter[str]()
        """Changes of each copy by applies."""
        self.names: dict[str, str] = {}
        """Of dataflows, by id."""
        self.healthy: dict[int, tuple[SimulatedDaemon, SimulatedRunner, int]] = {}
        """Runners that ran what is desired, and the changes of their copy until then."""

    def expected(self) -> dict[str, Programs]:
        return {
            copy.name or "": {node.id: node.path for node in copy.resolved.nodes}
            for one in self.desired
            for copy in map(one.copy_for, one.machines or ())
        }

    def living(self) -> Iterator[tuple[SimulatedDaemon, SimulatedRunner]]:
        for daemon in self.fleet.daemons.values():
            for runner in daemon.runners:
                if runner.lives:
                    yield daemon, runner

    def run(self) -> None:
        for _ in range(self.choice.randint(4, 14)):
            self.act()
            for _ in range(self.choice.randint(0, 25)):
                self.step()
                self.look()
        self.fleet.crash_in = 0
        for daemon in self.fleet.daemons.values():
            daemon.crash_in = 0
        self.heal()
        if report(self.fleet).paused is not None:
            self.fleet.request(PauseFleet(paused=False))
            self.heal()
        if any(one.state == "ended" for one in report(self.fleet).copies):
            self.apply(self.desired)
            self.heal()
        self.check()

    def heal(self) -> None:
        self.fleet.heal(0.0)
        self.fleet.pass_time_quickly(900.0)
        self.look()

    def apply(self, desired: tuple[DesiredDataflow, ...]) -> None:
        """Apply; a coordinator that crashes meanwhile may have stored it or not: again then."""
        before = self.expected()
        self.desired = desired
        while True:
            if self.fleet.coordinator is None:
                self.start_coordinator()
            crash = self.fleet.crash_in
            if not crash:
                apply(self.fleet, *desired)
                break
            try:
                apply(self.fleet, *desired)
                break
            except (AssertionError, KeyError):
                self.fleet.crash_in = 0
        after = self.expected()
        self.changes.update(
            name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
        )

    def start_coordinator(self) -> None:
        self.fleet.start_coordinator()
        for daemon in self.fleet.daemons.values():
            self.fleet.connect(daemon)

    def act(self) -> None:
        fleet, choice = self.fleet, self.choice
        daemon = choice.choice(list(fleet.daemons.values()))
        match choice.randrange(11):
            case 0 | 1 | 2 if fleet.coordinator is not None:
                names = choice.sample(["drive", "map"], choice.randint(0, 2))
                machines = choice.sample(MACHINES, choice.randint(1, len(MACHINES)))
                version = str(choice.randint(1, 3))
                self.apply(tuple(on(name, *machines, version=version) for name in names))
            case 3 if fleet.coordinator is None:
                self.start_coordinator()
            case 3:
                fleet.kill_coordinator()
            case 4 if daemon.agent is None:
                fleet.start_daemon(daemon)
            case 4:
                fleet.kill_daemon(daemon)
            case 5:
                fleet.reboot(daemon)
            case 6 if daemon.connection is None:
                fleet.connect(daemon)
            case 6:
                fleet.disconnect(daemon)
            case 7:  # long enough for starts without the coordinator
                fleet.pass_time_quickly(choice.choice((5.0, 60.0)))
            case 8:
                fleet.crash_in = choice.randint(1, 6)
            case 9:
                daemon.crash_in = choice.randint(1, 6)
            case 10:
                fleet.send_copy()
                fleet.promote()
                for one in fleet.daemons.values():
                    fleet.connect(one)
            case _:
                pass

    def step(self) -> None:
        fleet, choice = self.fleet, self.choice
        daemon = choice.choice(list(fleet.daemons.values()))
        fleet.step_to_coordinator(daemon)
        fleet.step_to_daemon(daemon)
        fleet.step_runner_event(daemon)
        for runner in list(daemon.runners):
            fleet.step_runner(runner, daemon)
        if choice.random() < 0.1:
            fleet.now += 0.3
            daemon.pass_time(fleet.now)
            fleet.fire_due()

    def look(self) -> None:
        """Require that no healthy node of an unchanged part was restarted."""
        self.names |= {key: spec.name or "" for key, (_, spec) in self.fleet.store.items()}
        expected = self.expected()
        for key, (daemon, runner, changes) in list(self.healthy.items()):
            if not any(runner is one for one in daemon.runners):
                del self.healthy[key]  # a power cut
            elif runner.phase != "running":
                name = self.names[runner.dataflow_id]
                assert self.changes[name] != changes, f"{name} was restarted: {runner.phase}"
                del self.healthy[key]
        for daemon, runner in self.living():
            record, _ = self.fleet.store.get(runner.dataflow_id, (None, None))
            if record is None or record.phase is not Phase.RUNNING or runner.phase != "running":
                continue  # its stop may have been requested before it was desired again
            name = record.name or ""
            if expected.get(name) == programs_of(runner):
                self.healthy[id(runner)] = (daemon, runner, self.changes[name])

    def check(self) -> None:
        """Require that each machine runs what is desired, once."""
        observed = report(self.fleet)
        running = [
            (self.names[runner.dataflow_id], daemon.name, runner.phase, programs_of(runner))
            for daemon, runner in self.living()
        ]
        expected = [
            (name, name.rpartition("@")[2], "running", programs)
            for name, programs in self.expected().items()
        ]
        assert sorted(running, key=str) == sorted(expected, key=str), observed
        assert all(one.state == "current" for one in observed.copies), observed


def run(seeds: range) -> None:
    for seed in seeds:
        try:
            History(seed).run()
        except AssertionError as problem:
            raise AssertionError(f"seed {seed}: {problem}") from problem


def test_a_copy_from_before_a_start_leads_to_no_second_one() -> None:
    fleet = SimulatedFleet(SETTINGS)
    robot = fleet.add_daemon("r1", "r1")
    fleet.settle()
    apply(fleet, on("drive", "r1", version="1"))
    before = [runner for runner in robot.runners if runner.lives]
    assert before == []
    fleet.send_copy()
    fleet.settle()
    fleet.pass_time(30.0)
    (runner,) = [runner for runner in robot.runners if runner.lives]
    fleet.promote()
    fleet.connect(robot)
    fleet.pass_time(60.0)
    assert [one for one in robot.runners if one.lives] == [runner]
    assert runner.phase == "running"
    assert [one.state for one in report(fleet).copies] == ["current"]


@pytest.mark.parametrize("stops", [True, False])
def test_what_has_ended_after_the_copy_is_not_started_again(stops: bool) -> None:
    fleet = SimulatedFleet(SETTINGS)
    robots = [fleet.add_daemon(name, name) for name in MACHINES]
    fleet.settle()
    spec = dataflow(camera="r1", plot="r2")
    started = fleet.request(StartDataflow(spec=spec))
    fleet.settle()
    answer = fleet.answers[started]
    assert isinstance(answer, Started)
    fleet.send_copy()
    if stops:
        fleet.request(StopDataflow(dataflow=answer.uuid))
    else:
        for robot in robots:
            robot.runners[0].finish()
    fleet.settle()
    assert not any(runner.lives for robot in robots for runner in robot.runners)
    fleet.kill_daemon(robots[0])  # also the next daemon process reports it
    fleet.start_daemon(robots[0])
    fleet.promote()
    fleet.connect(robots[0])
    fleet.pass_time(5.0)  # the other one returns later
    fleet.connect(robots[1])
    fleet.pass_time(60.0)
    assert not any(runner.lives for robot in robots for runner in robot.runners)
    assert [status for status, _ in fleet.listed()] == ["Finished"]
    record, _ = fleet.store[answer.uuid]
    reason = 'it had been stopped on "r1" before this coordinator took over'
    assert record.stopped_since == (reason if stops else None)


def test_an_apply_during_a_step_for_the_one_before_waits_for_it() -> None:
    # two applies while a copy runs: the second wants again what the first one is replacing
    run(range(5308, 5309))


def test_observed_becomes_desired_after_random_faults() -> None:
    run(range(QUICK))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seeds", chunks(QUICK, SLOW), ids=str)
def test_observed_becomes_desired_after_many_random_faults(seeds: range) -> None:
    run(seeds)
