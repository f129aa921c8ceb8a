"""The fleet of a test: machines whose nodes are functions, and a network that can be cut."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from dora_config.protocol.control import StopDataflow
from dora_daemon.agent.records import PartRecord
from dora_node_api.protocol import lockstep as wire
from dora_testing.cluster.fleet import Fleet
from dora_testing.cluster.link import Wall
from dora_testing.cluster.machine import SimulatedDaemon, SimulatedRunner
from dora_testing.cluster.runner import NodeRunner, Traffic
from dora_testing.errors import FlowError
from dora_testing.schedule import Schedule

_MOST_STEPS = 10_000
"""Events without time between them after which nodes count as sending in a circle."""


class Machine(SimulatedDaemon):
    """A machine whose runners have nodes."""

    network: Network

    def make_runner(self, record: PartRecord) -> SimulatedRunner:
        return NodeRunner(record, self, self.network)

    def step_runner(self, runner: SimulatedRunner) -> bool:
        return isinstance(runner, NodeRunner) and runner.work()


class Network(Fleet):
    """Delivers messages of the control plane and of nodes, unless there is a wall between."""

    def __init__(self, home: str, seed: int) -> None:
        """``home``: the machine of the coordinator."""
        self.home = home
        self.random = random.Random(seed)
        self.traffic: dict[str, Traffic] = {}
        self.latencies: dict[Wall, float] = {}
        self._schedule = Schedule()
        self._began = 0.0
        super().__init__(codec=False)
        self._began = self.now

    # --- time --------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """Seconds since the start of the cluster."""
        return round(self.now - self._began, 9)

    @property
    def now_ns(self) -> int:
        return wire.START_NS + round(self.seconds * 1e9)

    def at(self, time_ns: int, action: Callable[[], None]) -> None:
        self._schedule.add(time_ns, action)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        self.at(self.now_ns + max(0, round(seconds * 1e9)), action)

    def fire_due(self) -> bool:
        self._run_due()
        return super().fire_due()

    def _run_due(self) -> bool:
        found = False
        while (action := self._schedule.take(self.now_ns)) is not None:
            action()
            found = True
        return found

    def pass_time(self, seconds: float, *, heartbeats: bool = True, step: float = 1.0) -> None:
        end = self.now + seconds
        while self.now < end:
            until = min(end, self.now + step)
            self._pass_time_of_nodes(until)
            self._reconnect()
            super().pass_time(until - self.now or 1e-9, heartbeats=heartbeats, step=step)

    def _pass_time_of_nodes(self, until: float) -> None:
        """Let nodes work until just before a time."""
        limit = wire.START_NS + round((until - self._began) * 1e9)
        while (following := self._schedule.next) is not None and following < limit:
            self.now = self._began + (max(following, self.now_ns) - wire.START_NS) / 1e9
            self._work()

    def _work(self) -> None:
        """Let all nodes work until they wait."""
        for _ in range(_MOST_STEPS):
            moved = self._run_due()
            for daemon in self.ordered():
                for runner in daemon.runners:
                    moved |= daemon.step_runner(runner)
            if not moved:
                return
        raise FlowError(
            f"{_MOST_STEPS:,} events at {self.seconds:g} s: nodes that send to each other in a"
            " circle take no time; put a timer between them"
        )

    # --- machines ----------------------------------------------------------------------------

    def make_daemon(
        self, name: str, machine: str | None, labels: dict[str, str]
    ) -> SimulatedDaemon:
        daemon = Machine(name, machine, labels, codec=self.codec, instance=name)
        daemon.network = self
        return daemon

    def ordered(self) -> Iterable[SimulatedDaemon]:
        return self.random.sample(list(self.daemons.values()), len(self.daemons))

    def reaches(self, one: str, other: str) -> bool:
        return one == other or Wall((one, other)) not in self.walls

    def latency(self, one: str, other: str) -> float:
        return self.latencies.get(Wall((one, other)), 0.0)

    def peer(self, runner: NodeRunner, machine: str) -> NodeRunner | None:
        """Return the runner at the other end of a link that is connected."""
        link = runner.link
        own = next(name for name, one in self.daemons.items() if runner in one.runners)
        report = None if link is None else link.peers.get(machine)
        if report is None or report.state != "connected" or not self.reaches(own, machine):
            return None
        for found in self.daemons[machine].living(runner.dataflow_id):
            if isinstance(found, NodeRunner):
                return found
        return None

    def stop(self, dataflow_id: str) -> None:
        """Stop a dataflow, as a node has requested it."""
        self.request(StopDataflow(dataflow=dataflow_id))

    # --- the control plane -------------------------------------------------------------------

    def step_to_coordinator(self, daemon: SimulatedDaemon) -> bool:
        return self.reaches(self.home, daemon.name) and super().step_to_coordinator(daemon)

    def step_to_daemon(self, daemon: SimulatedDaemon) -> bool:
        return self.reaches(self.home, daemon.name) and super().step_to_daemon(daemon)

    def connect(self, daemon: SimulatedDaemon) -> None:
        if self.reaches(self.home, daemon.name):
            super().connect(daemon)

    def _reconnect(self) -> None:
        for daemon in self.daemons.values():
            if daemon.connection is None:
                self.connect(daemon)
