"""`InProcessCluster`: coordinator, daemons and runners of several machines in one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from dora_config.dataflow.loader import load_dataflow
from dora_config.dataflow.sources import OutputSource
from dora_config.history.explanation import Explanation
from dora_config.protocol import control
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.reports import DataflowSummary
from dora_testing.cluster.link import Wall
from dora_testing.cluster.network import Network, NodeMachine
from dora_testing.cluster.runner import Node, NodeRunner, Traffic
from dora_testing.errors import FlowError, find
from dora_testing.flow import Duration, seconds_of
from dora_testing.results import Output

ANSWER_SECONDS = 120.0
"""Limit of the virtual time of a command."""
SERVICE_SECONDS = 5.0
"""Time after which the service of a killed daemon or coordinator starts it again."""
BOOT_SECONDS = 30.0
"""Virtual seconds that a machine takes to boot."""
RECOVERY_SECONDS = 200.0
"""Time in which a cluster recovers from its faults."""

T = TypeVar("T")


class InProcessDataflow:
    """A dataflow of a cluster: what commands show, and the messages of its nodes."""

    def __init__(self, cluster: InProcessCluster, name: str) -> None:
        self._cluster = cluster
        self.name = name

    @property
    def row(self) -> DataflowSummary:
        """The last dataflow of this name in `dora list`."""
        rows = self._cluster.request(control.ListDataflows(), control.DataflowList).dataflows
        return next(row for row in reversed(rows) if row.name == self.name)

    @property
    def status(self) -> str:
        """`Running`, `Degraded` and so on, as `dora list` shows it."""
        return self.row.status

    @property
    def reason(self) -> str | None:
        """Why it has this status, as `dora list` shows it."""
        return self.row.reason

    def why(self) -> Explanation:
        """Return what `dora why` says: `summary`, `timeline` and more."""
        return self._cluster.request(
            control.Explain(dataflow=self.name), control.Explained
        ).explanation

    def runs(self, node: str) -> bool:
        """Return whether a node runs, also if the coordinator shows another state."""
        return self._runner(node) is not None

    def restarts(self, node: str) -> int:
        """Return how often a node was restarted since its machine has started it."""
        runner = self._runner(node)
        return 0 if runner is None else runner.restarts(node)

    def kill(self, node: str) -> None:
        """Kill the process of a node; its restart policy decides what follows."""
        runner = self._runner(node)
        if runner is None:
            raise FlowError(f'node "{node}" does not run')
        runner.kill(node)
        self._cluster.pass_time(0)

    def sent(self, output: str) -> Output:
        """Return the messages that were sent on `node/output`."""
        self._port(output, "output")
        return Output(output, self._traffic.sent[output])

    def received(self, edge: str) -> Output:
        """Return the messages that a node has got at `node/input`."""
        self._port(edge, "input")
        return Output(edge, self._traffic.received[edge])

    def lost(self, edge: str) -> int:
        """Return how many messages for `node/input` were dropped on their way or in a queue."""
        node, name = self._port(edge, "input")
        source = str(self._traffic.specs[node].inputs[name].source)
        waiting = sum(runner.waiting(node, name) for runner in self._runners())
        return len(self._traffic.sent[source]) - len(self._traffic.received[edge]) - waiting

    def _port(self, port: str, kind: str) -> tuple[str, str]:
        specs = self._traffic.specs.values()
        known = [
            f"{spec.id}/{name}"
            for spec in specs
            for name in (spec.outputs if kind == "output" else _edges(spec.inputs))
        ]
        find(dict.fromkeys(known), port, kind)
        node, _, name = port.rpartition("/")
        return node, name

    def _runners(self) -> list[NodeRunner]:
        return [one for one in self._cluster.runners() if one.traffic is self._traffic]

    def _runner(self, node: str) -> NodeRunner | None:
        find(self._traffic.specs, node, "node")
        return next((one for one in self._runners() if node in one.nodes), None)

    @property
    def _traffic(self) -> Traffic:
        return self._cluster.traffic_of(self.name)


class InProcessCluster:
    """Machines, a coordinator on the first one, and the network between them.

    Made by the fixture `dora_cluster`. The daemons, the coordinator and the runners take the
    decisions of the real ones; a node is a Python function. Times are virtual.
    """

    def __init__(self, machines: Sequence[str], *, seed: int = 0, folder: Path | str = ".") -> None:
        """``seed``: of the order of messages, and of `random_faults`. ``folder``: of files."""
        if not machines:
            raise FlowError("a cluster needs a machine")
        self.seed = seed
        self.faults: list[str] = []
        """The faults so far, each with its time."""
        self._folder = Path(folder)
        self._network = Network(machines[0], seed)
        for name in machines:
            self._network.add_machine(name)
        self._network.settle()

    @property
    def seconds(self) -> float:
        """Virtual seconds since the cluster was made."""
        return self._network.seconds

    # --- commands ----------------------------------------------------------------------------

    def start(
        self, dataflow: Path | str, nodes: Mapping[str, Node] | None = None, *, name: str = ""
    ) -> InProcessDataflow:
        """Start a dataflow, as `dora start` does.

        ``nodes``: a function `(event, send_output)` for each node, a class of operators, or a
        source; others wait for their end. ``deploy:`` in the file names the machines.
        """
        loaded = load_dataflow(self._folder / dataflow)
        specs = {spec.id: spec for spec in loaded.resolved.nodes}
        for node in nodes or {}:
            find(specs, node, "node", "the file has")
        name = name or loaded.resolved.name or loaded.path.stem
        self._network.traffic[name] = Traffic(nodes or {}, specs)
        spec = DataflowSpec(
            resolved=loaded.resolved,
            descriptor=loaded.descriptor_dict,
            name=name,
            exit_when_nodes_finish=loaded.resolved.exit_when_nodes_finish,
        )
        self.request(control.StartDataflow(spec=spec))
        return InProcessDataflow(self, name)

    def stop(self, name: str) -> None:
        """Stop a dataflow, as `dora stop` does."""
        self.request(control.StopDataflow(dataflow=name))

    def dataflow(self, name: str) -> InProcessDataflow:
        """Return a dataflow by its name: that in the file, or the name of the file."""
        self.traffic_of(name)
        return InProcessDataflow(self, name)

    def request(self, request: control.ControlRequest, kind: type[T] | None = None) -> T:
        """Let time pass until the coordinator answers a request. Raises FlowError."""
        network = self._network
        if network.coordinator is None:
            raise FlowError("the coordinator does not run")
        number = network.request(request)
        end = network.now + ANSWER_SECONDS
        while number not in network.answers and number not in network.failures:
            if network.now >= end:
                raise FlowError(f"the coordinator has not answered for {ANSWER_SECONDS:g} s")
            network.advance(0.1)
        if number in network.failures:
            raise FlowError(network.failures[number].message)
        answer: control.ControlAnswer = network.answers[number]
        assert kind is None or isinstance(answer, kind)
        return answer  # type: ignore[return-value]

    def traffic_of(self, name: str) -> Traffic:
        return find(self._network.traffic, name, "dataflow", "the cluster has")

    def runners(self) -> list[NodeRunner]:
        """Return the runners of all machines that live."""
        return [r for daemon in self._network.daemons.values() for r in daemon.runners if r.lives]

    # --- time --------------------------------------------------------------------------------

    def pass_time(self, duration: Duration) -> None:
        """Let time pass: seconds, or a text such as `3m`."""
        self._network.settle()
        self._network.advance(seconds_of(duration))

    # --- faults ------------------------------------------------------------------------------

    def cut(self, machine: str, *others: str) -> None:
        """Cut the network between a machine and others, by default all others."""
        self._note(f"cut({', '.join(map(repr, (machine, *others)))})")
        for other in self._others(machine, others):
            self._network.walls.add(Wall((machine, other)))

    def slow(self, machine: str, *others: str, latency: Duration) -> None:
        """Delay messages of nodes between a machine and others by ``latency``."""
        names = ", ".join(map(repr, (machine, *others)))
        self._note(f"slow({names}, latency={latency!r})")
        for other in self._others(machine, others):
            self._network.latencies[Wall((machine, other))] = seconds_of(latency)

    def heal(self, duration: Duration = RECOVERY_SECONDS) -> None:
        """End cuts and slowness, start what was killed, and give the cluster time to recover."""
        network = self._network
        self._note("heal()")
        network.walls.clear()
        network.latencies.clear()
        self._revive(None)
        for daemon in network.daemons.values():
            self._revive(daemon)
        self.pass_time(duration)

    def kill_coordinator(self, *, back_after: Duration = SERVICE_SECONDS) -> None:
        """Kill the coordinator, which is started again from its store after a while."""
        self._note("kill_coordinator()")
        if self._network.coordinator is not None:
            self._network.kill_coordinator()
        self._network.after(seconds_of(back_after), partial(self._revive, None))

    def kill(self, machine: str, *, back_after: Duration = SERVICE_SECONDS) -> None:
        """Kill the daemon of a machine, which is started again after a while; nodes run on."""
        self._down(machine, "kill", self._network.kill_daemon, back_after)

    def reboot(self, machine: str, *, back_after: Duration = BOOT_SECONDS) -> None:
        """Cut the power of a machine and boot it; only its disk survives."""
        self._down(machine, "reboot", self._network.reboot, back_after)

    def kill_runner(self, machine: str) -> None:
        """Kill the runners of a machine, with the nodes."""
        self._note(f"kill_runner({machine!r})")
        daemon = self._daemon(machine)
        for runner in daemon.runners:
            if runner.lives:
                daemon.kill_runner(runner)

    def step_clock(self, machine: str, seconds: float) -> None:
        """Set the clock of a machine forward, or back (`-3600`)."""
        self._note(f"step_clock({machine!r}, {seconds:g})")
        self._daemon(machine).clock += seconds

    def random_faults(self, duration: Duration, *, every: Duration = 20.0) -> None:
        """Let time pass with faults by the seed; `heal` ends what remains of them."""
        end = self.seconds + seconds_of(duration)
        pick = self._network.random
        machines = list(self._network.daemons)
        while self.seconds < end:
            machine = pick.choice(machines)
            faults: list[Callable[[], None]] = [
                partial(self.cut, machine),
                partial(self.slow, machine, latency=pick.uniform(0, 2)),
                self._network.walls.clear,
                self.kill_coordinator,
                partial(self.kill, machine),
                partial(self.reboot, machine),
                partial(self.kill_runner, machine),
                partial(self.step_clock, machine, pick.uniform(-1e4, 1e4)),
            ]
            pick.choice(faults)()
            self.pass_time(min(end - self.seconds, pick.uniform(0, 2 * seconds_of(every))))

    def _down(
        self, machine: str, what: str, fault: Callable[[NodeMachine], None], back: Duration
    ) -> None:
        self._note(f"{what}({machine!r})")
        daemon = self._daemon(machine)
        if daemon.agent is not None or what == "reboot":
            fault(daemon)
        self._network.after(seconds_of(back), partial(self._revive, daemon))

    def _revive(self, daemon: NodeMachine | None) -> None:
        """Start a daemon, or (None) the coordinator, unless it runs."""
        if daemon is None and self._network.coordinator is None:
            self._network.start_coordinator()
        elif daemon is not None and daemon.agent is None:
            self._network.start_daemon(daemon)

    def _note(self, fault: str) -> None:
        self.faults.append(f"at {self.seconds:g} s: {fault}")

    def _others(self, machine: str, others: Sequence[str]) -> list[str]:
        every = [name for name in self._network.daemons if name != self._daemon(machine).name]
        return [self._daemon(one).name for one in others or every]

    def _daemon(self, machine: str) -> NodeMachine:
        return find(self._network.daemons, machine, "machine", "the cluster has")


def _edges(inputs: Mapping[str, object]) -> list[str]:
    """Return the inputs that read an output."""
    sources = ((name, getattr(one, "source", None)) for name, one in inputs.items())
    return [name for name, source in sources if isinstance(source, OutputSource)]
