"""Simulated fleets with old, lost and copied stores, power cuts, promotions, erased disks.

60 s after the last fault each node runs once, or `dora list` and `dora why` name what is missing
and the command that helps.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import pytest
from support.simulation.fleet_simulation import SimulatedFleet, pipeline
from support.simulation.machine_simulation import FakeDaemon, FakeRunner

from dora_config.protocol.control import ChangeGraph, RestartDataflow, StopDataflow
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.runner import AddNode, RemoveNode
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.settings import Settings

QUICK = 300
SLOW = 10_000
CHUNK = 500
"""Seeds of one test."""
MACHINES = ("r1", "r2", "r3")
NAMES = ("app", "map")
SETTINGS = Settings(daemon_silence_limit=1e9)
"""Without heartbeats during long pauses, so that time passes in few steps."""
AFTER = 60.0


def spec(name: str, machines: list[str]) -> DataflowSpec:
    """A chain with a node on each of these machines."""
    nodes = {f"{name}-{machine}": machine for machine in machines}
    return pipeline(allow_unlinked=True, **nodes).model_copy(update={"name": name})


class History:
    """One random history of a fleet."""

    def __init__(self, seed: int) -> None:
        self.choice = random.Random(seed)
        self.fleet = SimulatedFleet(SETTINGS, codec=False)
        for machine in MACHINES:
            self.fleet.add_daemon(machine, machine)
        self.fleet.settle()
        self.stores: list[Any] = []
        """Backups and copies, of any age."""
        self.running: dict[str, str] = {}
        """Id of the last start of each name, once it ran, until a stop."""
        self.erased = False
        """A disk was lost: its machine does not know any more what it ran."""

    def living(self) -> Iterator[tuple[FakeDaemon, FakeRunner]]:
        for daemon in self.fleet.daemons.values():
            for runner in daemon.runners:
                if runner.lives:
                    yield daemon, runner

    def run(self) -> None:
        for name in NAMES:
            self.start(name)
        for _ in range(self.choice.randint(4, 16)):
            self.act()
            for _ in range(self.choice.randint(0, 25)):
                self.step()
        self.fleet.crash_in = 0
        for daemon in self.fleet.daemons.values():
            daemon.crash_in = 0
        self.heal()
        self.check()
        self.restart_all()
        self.check()

    def heal(self) -> None:
        """End all faults; machines return one after the other, in any order."""
        fleet, choice = self.fleet, self.choice
        if fleet.coordinator is None:
            fleet.start_coordinator()
        for daemon in choice.sample(list(fleet.daemons.values()), len(fleet.daemons)):
            if daemon.agent is None:
                fleet.start_daemon(daemon)
            elif daemon.connection is None:
                fleet.connect(daemon)
            fleet.pass_time(choice.choice((0.0, 4.0, 25.0)), step=2.0)
        fleet.pass_time(AFTER, step=2.0)

    def restart_all(self) -> None:
        """Run the command that helps."""
        assert self.fleet.coordinator is not None
        for dataflow in self.fleet.coordinator.registry.live():
            self.fleet.request(RestartDataflow(dataflow=dataflow.id))
        self.running.clear()
        self.fleet.pass_time(AFTER, step=2.0)

    def act(self) -> None:
        fleet, choice = self.fleet, self.choice
        daemon = choice.choice(list(fleet.daemons.values()))
        match choice.randrange(24):
            case 0 | 1 | 2 if fleet.coordinator is not None:
                self.start(choice.choice(NAMES))
            case 3 if fleet.coordinator is not None:
                name = choice.choice(NAMES)
                fleet.request(RestartDataflow(dataflow=name))
                self.await_running(name)
            case 4 if fleet.coordinator is not None:
                name = choice.choice(NAMES)
                fleet.request(StopDataflow(dataflow=name))
                self.running.pop(name, None)
                fleet.pass_time(1.0)
            case 5 if fleet.coordinator is not None:
                self.change()
            case 6 | 7:
                self.stores.append(copy.deepcopy(self.stored()))
            case 8 if self.stores:
                self.restore(choice.choice(self.stores))
            case 9:
                self.restore(({}, None, {}))
            case 10 | 11:
                fleet.reboot(daemon)
            case 12:
                for one in choice.sample(list(fleet.daemons.values()), 2):
                    fleet.reboot(one)
            case 13 if daemon.agent is None:
                fleet.start_daemon(daemon)
            case 13:
                fleet.kill_daemon(daemon)
            case 14 if daemon.connection is None:
                fleet.connect(daemon)
            case 14:
                fleet.disconnect(daemon)
            case 15:
                fleet.pass_time_quickly(choice.choice((5.0, 60.0)))
            case 16:
                fleet.crash_in = choice.randint(1, 6)
            case 17:
                daemon.crash_in = choice.randint(1, 6)
            case 18 if choice.random() < 0.3:
                fleet.reboot(daemon)
                daemon.disk.clear()
                self.erased = True
            case 19:
                if fleet.coordinator is None:
                    fleet.start_coordinator()
                else:
                    fleet.kill_coordinator()
            case 20 | 21 if fleet.coordinator is not None:
                self.restart_after_backup()
            case _:
                self.return_some()

    def restart_after_backup(self) -> None:
        """Put a backup back that was made before the last restart; some machines lose power."""
        name = self.choice.choice(NAMES)
        for one in NAMES:
            self.return_some()
            self.start(one)
        backup = copy.deepcopy(self.stored())
        self.fleet.request(RestartDataflow(dataflow=name))
        self.await_running(name)
        for daemon in self.choice.sample(list(self.fleet.daemons.values()), 2):
            if self.choice.random() < 0.5:
                self.fleet.reboot(daemon)
        self.restore(backup)

    def return_some(self) -> None:
        """Let what is off return, so that requests can succeed."""
        if self.fleet.coordinator is None:
            self.fleet.start_coordinator()
        for daemon in self.fleet.daemons.values():
            if daemon.agent is None:
                self.fleet.start_daemon(daemon)
            elif daemon.connection is None:
                self.fleet.connect(daemon)
        self.fleet.pass_time(2.0)

    def stored(self) -> Any:
        return self.fleet.store, self.fleet.stored_fleet, self.fleet.stored_generations

    def restore(self, stored: Any) -> None:
        """Kill the coordinator, and start it with another store."""
        if self.fleet.coordinator is not None:
            self.fleet.kill_coordinator()
        fleet = self.fleet
        fleet.store, fleet.stored_fleet, fleet.stored_generations = copy.deepcopy(stored)
        fleet.start_coordinator()

    def start(self, name: str) -> None:
        machines = self.choice.sample(MACHINES, self.choice.randint(1, len(MACHINES)))
        self.fleet.pass_time(1.0)
        self.fleet.start(spec(name, machines))
        self.await_running(name)

    def await_running(self, name: str) -> None:
        """Let a start take place, at times completely."""
        self.running.pop(name, None)
        if self.choice.random() < 0.2:
            return
        self.fleet.pass_time(2.0)
        if self.fleet.coordinator is None:
            return
        live = self.fleet.coordinator.registry.live_named(name)
        if live is not None and live.status()[0] == "Running":
            self.running[name] = live.id

    def change(self) -> None:
        assert self.fleet.coordinator is not None
        live = self.fleet.coordinator.registry.live()
        if not live:
            return
        dataflow = self.choice.choice(live)
        machine = self.choice.choice(MACHINES)
        (node,) = pipeline(allow_unlinked=True, **{f"extra-{machine}": machine}).resolved.nodes
        known = any(one.id == node.id for one in dataflow.spec.resolved.nodes)
        change = RemoveNode(node=node.id, grace=1.0) if known else AddNode(node=node)
        self.fleet.request(ChangeGraph(dataflow=dataflow.id, change=change))
        self.fleet.pass_time(2.0)

    def step(self) -> None:
        fleet, choice = self.fleet, self.choice
        daemon = choice.choice(list(fleet.daemons.values()))
        fleet.step_to_coordinator(daemon)
        fleet.step_to_daemon(daemon)
        fleet.step_runner_event(daemon)
        for runner in list(daemon.runners):
            fleet.step_runner(runner, daemon)
            fleet.step_link(runner, daemon)
        if choice.random() < 0.1:
            fleet.now += 0.3
            daemon.pass_time(fleet.now)
            fleet.fire_due()

    # ----------------------------------------------------------------------- checks

    def check(self) -> None:
        assert self.fleet.coordinator is not None
        registry = self.fleet.coordinator.registry
        live = {dataflow.id: dataflow for dataflow in registry.live()}
        seen: dict[tuple[str | None, str], str] = {}
        for daemon, runner in self.living():
            assert runner.dataflow_id in live, f"{runner.nodes} run on {daemon.name} unseen"
            dataflow = live[runner.dataflow_id]
            for node in runner.nodes:
                key = (dataflow.name, node)
                assert key not in seen, f"{key} runs on {seen[key]} and on {daemon.name}"
                seen[key] = daemon.name
        for dataflow in live.values():
            self.check_dataflow(dataflow)
        if not self.erased:
            for name, last in self.running.items():
                found = registry.live_named(name)
                assert found is not None, f"{name} does not run"
                assert found.id == last, f"an earlier start of {name} runs"

    def check_dataflow(self, dataflow: Dataflow) -> None:
        assert self.fleet.coordinator is not None
        named = self.fleet.coordinator.registry.named(dataflow, self.fleet.now)
        status, reason = dataflow.status()
        words = f"{status}: {reason}; {named}"
        running = {
            node
            for _, runner in self.living()
            if runner.dataflow_id == dataflow.id and runner.phase == "running"
            for node in runner.nodes
        }
        for part in dataflow.parts.values():
            for node in () if part.ended else part.nodes:
                if node not in running:
                    assert any(node in text and "`dora " in text for text in named), (
                        f"{node} does not run, and is not named: {words}"
                    )
        if not named:
            assert status == "Running", words
            nodes = {node.id for node in dataflow.spec.resolved.nodes}
            assert running == nodes, words


def run(seeds: range) -> None:
    for seed in seeds:
        try:
            History(seed).run()
        except AssertionError as problem:
            raise AssertionError(f"seed {seed}: {problem}") from problem


def test_each_node_runs_once_or_is_named_after_random_faults() -> None:
    run(range(QUICK))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(QUICK, SLOW, CHUNK))
def test_each_node_runs_once_or_is_named_after_many_random_faults(first: int) -> None:
    run(range(first, min(SLOW, first + CHUNK)))
