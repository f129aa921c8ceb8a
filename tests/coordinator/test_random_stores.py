"""Simulated clusters with old, lost and copied stores, power cuts, erased disks, promotions on both
sides of a cut network, lost messages, and a robot that forges what it reports.

60 s after the last fault one coordinator leads, and each node runs once, or `dora list` and
`dora why` name what is missing and the command that helps.
"""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from support.claims import new_authority
from support.seeds import chunks
from support.simulation import cluster_simulation
from support.simulation.cluster_simulation import STATION, Place, SimulatedCluster
from support.simulation.fleets import pipeline
from support.simulation.machines import SimulatedDaemon, SimulatedRunner

from dora_config.protocol.control import ChangeGraph, RestartDataflow, StopDataflow
from dora_config.protocol.dataflow import DataflowSpec, StartIdentity
from dora_config.protocol.runner import AddNode, RemoveNode
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.io.authority import Authority
from dora_coordinator.settings import Settings
from dora_coordinator.state.records import PartState

QUICK = 45
SLOW = 10_000
MACHINES = ("r1", "r2", "r3")
PLACES = (STATION, *MACHINES)
NAMES = ("app", "map")
SETTINGS = Settings(daemon_silence_limit=1e9)
"""Without heartbeats during long pauses, so that time passes in few steps."""
AFTER = 60.0
AUTHORITY = new_authority()


def spec(name: str, machines: list[str]) -> DataflowSpec:
    """A chain with a node on each of these machines."""
    nodes = {f"{name}-{machine}": machine for machine in machines}
    return pipeline(allow_unlinked=True, **nodes).model_copy(update={"name": name})


class History:
    """One random history of a fleet."""

    def __init__(self, seed: int, folder: Path) -> None:
        """``folder``: for what daemons keep."""
        self.choice = random.Random(seed)
        self.cluster = SimulatedCluster(SETTINGS, AUTHORITY, folder, MACHINES, NAMES)
        self.stores: list[Any] = []
        """Backups and copies, of any age."""
        self.running: dict[str, str] = {}
        """Id of the last start of each name, once it ran, until a stop."""
        self.latest: dict[str, tuple[float, int, int, str]] = {}
        """Order of the last start of each name that was accepted, on any side of a cut network."""
        self.erased = False
        """A disk was lost: its machine does not know any more what it ran."""

    @property
    def fleet(self) -> Place:
        """The coordinator that the operator uses."""
        return self.cluster.present

    def living(self) -> Iterator[tuple[SimulatedDaemon, SimulatedRunner]]:
        for daemon in self.cluster.daemons.values():
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
        for place in self.cluster.places:
            place.crash_in = 0
        if self.choice.random() < 0.25:
            self.replace_while_away()
        for daemon in self.cluster.daemons.values():
            daemon.crash_in = 0
        self.heal()
        self.check()
        self.restart_all()
        self.check()

    def heal(self) -> None:
        """End all faults but that of a forging robot; machines return one after the other, in any
        order.
        """
        cluster, choice = self.cluster, self.choice
        cluster.divide(frozenset())
        for place in choice.sample(cluster.places, len(cluster.places)):
            if not place.runs and place.record.standbys:
                place.start_coordinator()
        for daemon in choice.sample(list(cluster.daemons.values()), len(cluster.daemons)):
            if daemon.agent is None:
                cluster.start_daemon(daemon)
            elif daemon.connection is None:
                cluster.connect(daemon)
            cluster.pass_time(choice.choice((0.0, 4.0, 25.0)), step=2.0)
        cluster.pass_time(AFTER, step=2.0, watching=True)
        leaders = cluster.leaders()
        assert len(leaders) == 1, "exactly one coordinator leads"
        (cluster.present,) = leaders
        for daemon in cluster.daemons.values():
            assert daemon.connection is not None, f"{daemon.name} obeys no coordinator"
            assert cluster.place_of(daemon) is cluster.present, (
                f"{daemon.name} obeys an earlier one"
            )

    def restart_all(self) -> None:
        """Run the command that helps."""
        assert self.fleet.coordinator is not None
        for dataflow in self.fleet.coordinator.registry.live():
            self.fleet.request(RestartDataflow(dataflow=dataflow.id))
        self.running.clear()
        self.cluster.pass_time(AFTER, step=2.0)

    def act(self) -> None:
        cluster, choice = self.cluster, self.choice
        fleet = self.fleet
        daemon = choice.choice(list(cluster.daemons.values()))
        match choice.randrange(32):
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
                cluster.pass_time(1.0)
            case 5 if fleet.coordinator is not None:
                self.change()
            case 6 | 7:
                self.stores.append(copy.deepcopy(self.stored()))
            case 8 if self.stores:
                self.restore(choice.choice(self.stores))
            case 9:
                self.restore(({}, None, {}))
            case 10 | 11:
                cluster.place_of(daemon).reboot(daemon)
            case 12:
                for one in choice.sample(list(cluster.daemons.values()), 2):
                    cluster.place_of(one).reboot(one)
            case 13 if daemon.agent is None:
                cluster.start_daemon(daemon)
            case 13:
                cluster.place_of(daemon).kill_daemon(daemon)
            case 14 if daemon.connection is None:
                cluster.connect(daemon)
            case 14:
                cluster.place_of(daemon).disconnect(daemon)
            case 15:
                cluster.pass_time_quickly(choice.choice((5.0, 60.0)))
            case 16:
                fleet.crash_in = choice.randint(1, 6)
            case 17:
                daemon.crash_in = choice.randint(1, 6)
            case 18 if choice.random() < 0.3:
                cluster.place_of(daemon).reboot(daemon)
                daemon.disk.clear()
                cluster.forget_coordinators(daemon)
                self.erased = True
            case 19:
                if not fleet.runs:
                    fleet.start_coordinator()
                else:
                    fleet.kill_coordinator()
            case 20 | 21 if fleet.coordinator is not None:
                self.restart_after_backup()
            case 22 | 23:
                self.promote()
            case 28 | 29 if fleet.coordinator is not None:
                self.replace_while_away()
            case 24:
                cut = choice.sample(PLACES, choice.randint(1, 2))
                cluster.divide(frozenset(cut) if not cluster.cut else frozenset())
            case 25:
                cluster.divide(frozenset())
            case 26:
                cluster.present = choice.choice(cluster.leaders() or [cluster.present])
            case 27:
                cluster.forge(choice)
            case 30:
                fleet.lose_in = choice.randint(1, 12)
            case _:
                self.return_some()

    def promote(self, stored: Any = None) -> None:
        """Let another machine take over with the store of the present coordinator, or with a copy
        of any age (or ``stored``), at times without the end of the present one.
        """
        cluster, choice = self.cluster, self.choice
        place = choice.choice([one for one in cluster.places if one is not self.fleet])
        present = copy.deepcopy(self.stored())
        if self.fleet.runs and choice.random() < 0.3:
            self.fleet.kill_coordinator()
        if stored is None:
            stored = choice.choice([present, present, *self.stores])
        place.store, place.stored_fleet, place.stored_generations = copy.deepcopy(stored)
        cluster.promote(place)
        if choice.random() < 0.7:
            self.return_some()

    def restart_after_backup(self) -> None:
        """Put a backup back that was made before the last restart; some machines lose power."""
        name = self.choice.choice(NAMES)
        for one in NAMES:
            self.return_some()
            self.start(one)
        if self.fleet.coordinator is None:
            return
        backup = copy.deepcopy(self.stored())
        self.fleet.request(RestartDataflow(dataflow=name))
        self.await_running(name)
        for daemon in self.choice.sample(list(self.cluster.daemons.values()), 2):
            if self.choice.random() < 0.5:
                self.cluster.place_of(daemon).reboot(daemon)
        self.restore(backup)

    def replace_while_away(self) -> None:
        """Start a dataflow elsewhere, with a store that does not contain it, while its machine is
        off or cut off; then the store becomes older again, or is lost.
        """
        cluster, choice = self.cluster, self.choice
        name, away = choice.choice(NAMES), choice.choice(MACHINES)
        cluster.divide(frozenset())
        self.return_some()
        if self.fleet.coordinator is None:
            return
        self.fleet.request(StopDataflow(dataflow=name))
        cluster.pass_time(2.0)
        before = copy.deepcopy(self.stored())
        self.start(name, [away])
        earlier: Any = choice.choice((copy.deepcopy(self.stored()), ({}, None, {})))
        if choice.random() < 0.5:
            cluster.place_of(cluster.daemons[away]).reboot(cluster.daemons[away])
        else:
            cluster.divide(frozenset({away}))
        self.running.pop(name, None)
        self.restore(before)
        cluster.pass_time(2.0, watching=True)
        self.start(name, choice.sample([one for one in MACHINES if one != away], 1))
        if choice.random() < 0.5:
            self.restore(earlier)
        elif self.fleet.runs:
            self.promote(earlier)

    def return_some(self) -> None:
        """Let what is off return, so that requests can succeed."""
        if not self.fleet.runs:
            self.fleet.start_coordinator()
        for daemon in self.cluster.daemons.values():
            if daemon.agent is None:
                self.cluster.start_daemon(daemon)
        self.cluster.pass_time(2.0, watching=True)
        if self.fleet.coordinator is None and (leaders := self.cluster.leaders()):
            self.cluster.present = max(leaders, key=lambda one: one.succession.leading.rank)

    def stored(self) -> Any:
        return self.fleet.store, self.fleet.stored_fleet, self.fleet.stored_generations

    def restore(self, stored: Any) -> None:
        """Kill the coordinator, and start it with another store."""
        fleet = self.fleet
        if fleet.runs:
            fleet.kill_coordinator()
        fleet.store, fleet.stored_fleet, fleet.stored_generations = copy.deepcopy(stored)
        fleet.start_coordinator()

    def start(self, name: str, machines: list[str] | None = None) -> None:
        """``machines`` None: any."""
        if machines is None:
            machines = self.choice.sample(MACHINES, self.choice.randint(1, len(MACHINES)))
        self.cluster.pass_time(1.0)
        if self.fleet.coordinator is None:
            return
        self.fleet.start(spec(name, machines))
        self.await_running(name)

    def await_running(self, name: str) -> None:
        """Let a start take place, at times completely."""
        self.running.pop(name, None)
        self.note_live(name)
        if self.choice.random() < 0.2:
            return
        self.cluster.pass_time(2.0)
        live = self.note_live(name)
        if live is None or live.status()[0] != "Running":
            return
        # on one side of a cut network, an earlier start may still have the name
        if live.begun.order(live.id) == self.latest[name]:
            self.running[name] = live.id

    def note_live(self, name: str) -> Dataflow | None:
        """Return the dataflow that has a name, and note when it was started."""
        if self.fleet.coordinator is None:
            return None
        live = self.fleet.coordinator.registry.live_named(name)
        if live is not None:
            order = live.begun.order(live.id)
            self.latest[name] = max(order, self.latest.get(name, order))
        return live

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
        self.cluster.pass_time(2.0)

    def step(self) -> None:
        cluster, choice = self.cluster, self.choice
        daemon = choice.choice(list(cluster.daemons.values()))
        fleet = cluster.place_of(daemon)
        fleet.step_to_coordinator(daemon)
        fleet.step_to_daemon(daemon)
        fleet.step_runner_event(daemon)
        for runner in list(daemon.runners):
            fleet.step_runner(runner, daemon)
            fleet.step_link(runner, daemon)
        if choice.random() < 0.1:
            for place in cluster.places:
                place.now += 0.3
                place.fire_due()
            daemon.pass_time(cluster.now)

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
                if node not in running and not (named and part.state is PartState.PREPARED):
                    assert any(node in text and "`dora " in text for text in named), (
                        f"{node} does not run, and is not named: {words}"
                    )
        if not named:
            assert status == "Running", words
            nodes = {node.id for node in dataflow.spec.resolved.nodes}
            assert running == nodes, f"{dataflow.name}: {running} run, not {nodes}: {words}"


@pytest.fixture(autouse=True)
def quick_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated power cuts spare the files of this machine."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def failure(seed: int) -> AssertionError | None:
    """Return what is wrong after the history of a seed."""
    try:
        with TemporaryDirectory() as folder:
            History(seed, Path(folder)).run()
    except AssertionError as problem:
        return problem
    return None


def run(seeds: range) -> None:
    for seed in seeds:
        if (problem := failure(seed)) is not None:
            raise AssertionError(f"seed {seed}: {problem}") from problem


@pytest.mark.parametrize("first", range(0, QUICK, QUICK // 3))
def test_each_node_runs_once_or_is_named_after_random_faults(first: int) -> None:
    run(range(first, first + QUICK // 3))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seeds", chunks(QUICK, SLOW), ids=str)
def test_each_node_runs_once_or_is_named_after_many_random_faults(seeds: range) -> None:
    run(seeds)


def test_histories_find_that_signatures_are_not_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Authority, "has_signed", lambda self, text, proof: True)
    monkeypatch.setattr(cluster_simulation, "is_valid", lambda claim, authority: True)
    assert any(failure(seed) for seed in range(QUICK))


def test_histories_find_that_starts_have_no_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StartIdentity, "order", lambda self, dataflow_id: (0.0, 0, 0, ""))
    assert any(failure(seed) for seed in range(QUICK))
