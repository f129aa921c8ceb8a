"""The fleet of a test: machines whose nodes are functions, and a network that can be cut."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from dora_config.protocol.control import StopDataflow
from dora_daemon.agent.records import PartRecord
from dora_node_api.protocol import lockstep as wire
from dora_testing.cluster.fleet import InProcessFleet
from dora_testing.cluster.link import Wall
from dora_testing.cluster.machine import InProcessMachine
from dora_testing.cluster.runner import NodeRunner, Traffic
from dora_testing.errors import FlowError
from dora_testing.schedule import Schedule

_MOST_STEPS = 10_000
"""Number of events at one virtual time after which nodes count as sending in a cycle."""


@dataclass
class NodeMachine(InProcessMachine[NodeRunner]):
    """A machine whose runners have nodes."""

    network: Network = field(kw_only=True)

    def make_runner(self, record: PartRecord) -> NodeRunner:
        return NodeRunner(record, self, self.network)


class Network(InProcessFleet[NodeMachine]):
    """Delivers messages of the control plane and of nodes, unless there is a wall between."""

    def __init__(self, home: str, seed: int) -> None:
        """``home``: the machine of the coordinator."""
        self.home = home
        self.random = random.Random(seed)
        self.traffic: dict[str, Traffic] = {}
        self.latencies: dict[Wall, float] = {}
        self._schedule = Schedule()
        self._began = 0.0
        super().__init__()
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
        self._schedule.at(time_ns, action)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        self.at(self.now_ns + max(0, round(seconds * 1e9)), action)

    def fire_due(self) -> None:
        self._run_due()
        super().fire_due()

    def _run_due(self) -> bool:
        found = False
        self._schedule.now_ns = self.now_ns
        while (action := self._schedule.take()) is not None:
            action()
            found = True
        return found

    def advance(self, seconds: float) -> None:
        """Let time pass, in which nodes work."""
        end = self.now + seconds
        while self.now < end:
            until = min(end, self.now + 1.0)
            self._pass_time_of_nodes(until)
            self._reconnect()
            self.pass_time(until - self.now or 1e-9)

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
                    moved |= runner.work()
            if not moved:
                return
        raise FlowError(
            f"{_MOST_STEPS:,} events at {self.seconds:g} s: nodes that send to each other in a"
            " circle take no time; put a timer between them"
        )

    # --- machines ----------------------------------------------------------------------------

    def add_machine(self, name: str) -> None:
        self.add(NodeMachine(name, name, instance=name, network=self))

    def ordered(self) -> Iterable[NodeMachine]:
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
        return next(iter(self.daemons[machine].living(runner.dataflow_id)), None)

    def stop(self, dataflow_id: str) -> None:
        """Stop a dataflow, as a node has requested it."""
        self.request(StopDataflow(dataflow=dataflow_id))

    # --- the control plane -------------------------------------------------------------------

    def step_to_coordinator(self, daemon: NodeMachine) -> bool:
        return self.reaches(self.home, daemon.name) and super().step_to_coordinator(daemon)

    def step_to_daemon(self, daemon: NodeMachine) -> bool:
        return self.reaches(self.home, daemon.name) and super().step_to_daemon(daemon)

    def connect(self, daemon: NodeMachine) -> None:
        if self.reaches(self.home, daemon.name):
            super().connect(daemon)

    def _reconnect(self) -> None:
        for daemon in self.daemons.values():
            if daemon.connection is None:
                self.connect(daemon)
