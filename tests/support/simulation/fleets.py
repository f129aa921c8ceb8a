"""The simulated fleet of dora-testing with what tests of the core need beside it."""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Awaitable
from functools import partial
from typing import TypeVar

from dora_config.dataflow.resolved import (
    ResolvedDataflow,
    ResolvedDeploy,
    ResolvedInput,
    ResolvedNode,
)
from dora_config.dataflow.sources import OutputSource
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.fleet import FleetStatus, StoredGeneration
from dora_coordinator.settings import Settings
from dora_coordinator.state.records import DataflowRecord
from dora_testing.cluster.fleet import LOOP, Fleet, in_loop
from dora_testing.cluster.machine import SimulatedDaemon, SimulatedRunner

T = TypeVar("T")


def dataflow(**machines: str | None) -> DataflowSpec:
    """Return a specification of nodes without edges: ``dataflow(camera="robot", logger=None)``."""
    nodes = tuple(
        ResolvedNode(id=node, path=f"{node}.py", deploy=ResolvedDeploy(machine=machine))
        for node, machine in machines.items()
    )
    return DataflowSpec(resolved=ResolvedDataflow(nodes=nodes))


def pipeline(*, allow_unlinked: bool = False, **machines: str | None) -> DataflowSpec:
    """Like :func:`dataflow`, with an edge from each node to the next."""
    nodes: list[ResolvedNode] = []
    for node, machine in machines.items():
        inputs = {}
        if nodes:
            inputs["in"] = ResolvedInput(source=OutputSource(node=nodes[-1].id, output="out"))
        nodes.append(
            ResolvedNode(
                id=node,
                path=f"{node}.py",
                deploy=ResolvedDeploy(machine=machine),
                inputs=inputs,
                outputs=("out",),
            )
        )
    resolved = ResolvedDataflow(nodes=tuple(nodes))
    return DataflowSpec(resolved=resolved, allow_unlinked=allow_unlinked)


class SimulatedFleet(Fleet):
    """A fleet with standbys, lost stores, clients that leave, and single steps of runners."""

    _copy: (
        tuple[
            dict[str, tuple[DataflowRecord, DataflowSpec]],
            FleetStatus | None,
            dict[int, StoredGeneration],
        ]
        | None
    ) = None

    def lose_store(self) -> None:
        """Kill the coordinator and start it with an empty store."""
        self.kill_coordinator()
        self.store.clear()
        self.start_coordinator()

    def send_copy(self) -> None:
        """Send the store to a standby."""
        self._copy = copy.deepcopy((self.store, self.stored_fleet, self.stored_generations))

    def promote(self) -> None:
        """Replace the coordinator by one with the standby's copy, which may be old."""
        if self._copy is None:
            return
        if self.coordinator is not None:
            self.kill_coordinator()
        self.store, self.stored_fleet, self.stored_generations = copy.deepcopy(self._copy)
        self.start_coordinator()

    def kill_runner(self, runner: SimulatedRunner, daemon: SimulatedDaemon) -> None:
        daemon.kill_runner(runner)

    def leave(self, *numbers: int) -> None:
        """The clients of these requests leave; none: those of all requests."""
        for number in numbers or tuple(self._asked):
            if (asked := self._asked.get(number)) is not None:
                in_loop(asked.scope.cancel)
        self._run_queries()

    def written(self) -> None:
        """All progress was written to the sockets of clients."""
        for asked in self._asked.values():
            in_loop(asked.written)
        self._run_queries()

    def displayed(self, number: int, stream: int) -> None:
        """A client has displayed the last update of a stream."""
        if (asked := self._asked.get(number)) is not None:
            in_loop(partial(asked.acknowledged, stream))
        self._run_queries()

    def run(self, work: Awaitable[T]) -> T:
        """Return the result of a coroutine that uses `wait_for`."""

        async def done() -> T:
            return await work

        return LOOP.run_until_complete(done())

    async def wait_for(self, number: int) -> None:
        """Let time pass until a request is answered."""
        while number not in self.answers and number not in self.failures:
            self.pass_time(1.0)
            await asyncio.sleep(0)

    def kill_link(self, runner: SimulatedRunner) -> None:
        """Its runner starts another link, which gets another port."""
        if runner.link is not None:
            runner.link.endpoint = None

    def finish_runner(
        self, runner: SimulatedRunner, daemon: SimulatedDaemon, *, failed: set[str] | None = None
    ) -> None:
        """All nodes end."""
        daemon.finish_runner(runner, failed=failed)

    def wait_for_timers(
        self, runner: SimulatedRunner, daemon: SimulatedDaemon, only_virtual_left: bool = True
    ) -> None:
        """Report whether the remaining nodes of a runner read only timers."""
        runner.only_virtual_left = only_virtual_left
        daemon.report_runner(runner)

    def pass_time_quickly(self, seconds: float) -> None:
        """Let time pass from one timer to the next, without heartbeats."""
        end = self.now + seconds
        while True:
            for daemon in self.daemons.values():
                daemon.pass_time(self.now)
            self.fire_due()
            self.settle()
            due = [at for daemon in self.daemons.values() for at in daemon.timers()]
            following = min((*due, *self.timers.values()), default=math.inf)
            if following > end or self.now >= end:
                self.now = end
                return
            self.now = max(self.now + 0.1, following)

    def heal(self, seconds: float = 200.0) -> None:
        """End every fault and give the fleet time to recover."""
        self.walls.clear()
        if self.coordinator is None:
            self.start_coordinator()
        for daemon in self.daemons.values():
            if daemon.agent is None:
                self.start_daemon(daemon)
            elif daemon.connection is None:
                self.connect(daemon)
        self.settle()
        self.pass_time(seconds)


def fleet_of(*machines: str) -> SimulatedFleet:
    """Return a fleet of connected machines with these ids."""
    fleet = SimulatedFleet()
    for machine in machines:
        fleet.add_daemon(machine, machine)
    fleet.settle()
    return fleet


def running_fleet(
    spec: DataflowSpec | None = None,
) -> tuple[SimulatedFleet, SimulatedDaemon, SimulatedDaemon]:
    """Return a fleet of "robot" and "station" that run ``spec``, by default a node on each."""
    fleet = fleet_of("robot", "station")
    fleet.start(spec or dataflow(camera="robot", detector="station"))
    fleet.settle()
    assert fleet.listed() == [("Running", None)]
    return fleet, fleet.daemons["robot"], fleet.daemons["station"]


def running_dataflows(*names: str) -> tuple[SimulatedFleet, SimulatedDaemon]:
    """Return a fleet of one unnamed daemon on which dataflows with these names run."""
    fleet = SimulatedFleet(Settings(archived_dataflows=2, streams_per_client=2))
    daemon = fleet.add_daemon()
    fleet.settle()
    for name in names:
        fleet.start(dataflow(source=None, sink=None).model_copy(update={"name": name}))
        fleet.settle()
    return fleet, daemon
