"""The simulated fleet of dora-testing with what tests of the core need beside it."""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from support.simulation.machines import Crashed, SimulatedDaemon, SimulatedRunner

from dora_config.dataflow.resolved import (
    ResolvedDataflow,
    ResolvedDeploy,
    ResolvedInput,
    ResolvedNode,
)
from dora_config.dataflow.sources import OutputSource
from dora_config.protocol.control import (
    ControlProgress,
    ControlRequest,
    DataflowList,
    ListDataflows,
    StartDataflow,
)
from dora_config.protocol.daemon import (
    TO_COORDINATOR,
    TO_DAEMON,
    CoordinatorMessage,
    Coordinators,
    DaemonMessage,
    EndDaemon,
    Register,
    Registered,
    RegistrationRefused,
)
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.fleet import FleetStatus, StoredGeneration
from dora_coordinator.queries.clients import RequestClient
from dora_coordinator.settings import Settings
from dora_coordinator.state import commands as coordinator_commands
from dora_coordinator.state.commands import Command
from dora_coordinator.state.events import Event, FleetStep, FleetStepEnded, StoreLoaded
from dora_coordinator.state.records import DataflowRecord
from dora_testing.cluster.fleet import LOOP, InProcessFleet, in_loop
from dora_testing.cluster.machine import InProcessRunner

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


WRITES = (
    coordinator_commands.SaveRecord,
    coordinator_commands.DeleteRecord,
    coordinator_commands.SaveFleet,
)
_HANDSHAKE = (Register, Registered, RegistrationRefused, Coordinators)
"""Messages without which a connection ends."""


class _SimulatedClient(RequestClient):
    """Progress counts as written when the test says so."""

    def __init__(self, number: int, progressed: Callable[[int, object], None]) -> None:
        super().__init__(number)
        self._progressed = progressed
        self._unwritten: list[Callable[[], None]] = []

    def notify(self, progress: ControlProgress, written: Callable[[], None] | None = None) -> None:
        self._progressed(self.number, progress)
        if written is not None:
            self._unwritten.append(written)

    def written(self) -> None:
        while self._unwritten:
            self._unwritten.pop(0)()


class SimulatedFleet(InProcessFleet[SimulatedDaemon]):
    """A fleet with roll-outs, crashes between two writes, lost messages, standbys, clients that
    read progress and leave, and single steps of runners.
    """

    _copy: (
        tuple[
            dict[str, tuple[DataflowRecord, DataflowSpec]],
            FleetStatus | None,
            dict[int, StoredGeneration],
        ]
        | None
    ) = None

    def __init__(self, settings: Settings | None = None, *, codec: bool = True) -> None:
        """``codec``: messages pass through the codecs, which takes most of the time."""
        self.codec = codec
        self.crash_in = 0
        """The coordinator is killed before this write, counted from now; 0: it is not."""
        self.lose_in = 0
        """This message about parts is lost, counted from now; 0: none is."""
        self.slow = False
        """Connections succeed but take long."""
        self.progress: list[object] = []
        self.progress_of: dict[int, list[object]] = {}
        """Progress by request."""
        self.log: list[str] = []
        self.ended = False
        self.stored_fleet: FleetStatus | None = None
        self.stored_generations: dict[int, StoredGeneration] = {}
        self._asked: dict[int, _SimulatedClient] = {}
        """Clients of queries without an answer."""
        self._steps: dict[int, FleetStep] = {}
        """Steps of roll-outs that are being carried out, by request."""
        self._next_steps: list[FleetStep] = []
        super().__init__(settings)

    # ------------------------------------------------------------------- processes

    def _loaded(self) -> StoreLoaded:
        generations = tuple(self.stored_generations.values())
        stored = tuple(self.store.values())
        return StoreLoaded(stored, fleet=self.stored_fleet, generations=generations)

    def kill_coordinator(self) -> None:
        self._asked.clear()
        self._steps.clear()
        self._next_steps.clear()
        super().kill_coordinator()

    def add_daemon(
        self, name: str = "default", machine: str | None = None, **labels: str
    ) -> SimulatedDaemon:
        daemon = SimulatedDaemon(name, machine, labels=labels, codec=self.codec)
        self.add(daemon)
        return daemon

    def end_daemon(self, daemon: SimulatedDaemon) -> None:
        """SIGINT, or `systemctl stop`."""
        self._agent(daemon, EndDaemon())

    # --------------------------------------------------------------------- clients

    def start(self, spec: DataflowSpec) -> int:
        return self.request(StartDataflow(spec=spec))

    def listed(self) -> list[tuple[str, str | None]]:
        """Return status and reason of every dataflow, as `dora list` shows them."""
        answer = self.answers[self.request(ListDataflows())]
        assert isinstance(answer, DataflowList)
        return [(row.status, row.reason) for row in answer.dataflows]

    def _client(self, number: int) -> RequestClient:
        client = self._asked[number] = _SimulatedClient(number, self._progressed)
        return client

    async def _answer(self, number: int, request: ControlRequest) -> None:
        await super()._answer(number, request)
        self._asked.pop(number, None)

    def _progressed(self, number: int, progress: object) -> None:
        self.progress.append(progress)
        self.progress_of.setdefault(number, []).append(progress)

    # ----------------------------------------------------------------------- steps

    def handle(self, event: Event, then: Callable[[], None] | None = None) -> None:
        super().handle(event, then)
        self._carry_out()

    def _carry_out(self) -> None:
        """Begin the next steps of roll-outs, and report those that have ended."""
        while self._next_steps:
            step = self._next_steps.pop(0)
            self._steps[self.request(step.request)] = step
        for number, step in list(self._steps.items()):
            failure = self.failures.get(number)
            if number in self._steps and (failure is not None or number in self.answers):
                del self._steps[number]
                problem = None if failure is None else failure.message
                code = "failed" if failure is None else failure.code
                self.handle(FleetStepEnded(step, problem, code))

    def _receive(self, daemon: SimulatedDaemon, message: DaemonMessage | str) -> None:
        if isinstance(message, str):
            message = TO_COORDINATOR.decode(message)
        if not self._is_lost(message):
            super()._receive(daemon, message)

    def _deliver(self, daemon: SimulatedDaemon, message: CoordinatorMessage | str) -> None:
        if isinstance(message, str):
            message = TO_DAEMON.decode(message)
        if not self._is_lost(message):
            super()._deliver(daemon, message)

    def _is_lost(self, message: DaemonMessage | CoordinatorMessage) -> bool:
        if isinstance(message, _HANDSHAKE):
            return False
        self.lose_in -= 1
        return self.lose_in == 0

    def step_runner(self, runner: SimulatedRunner, daemon: SimulatedDaemon) -> bool:
        """Advance a runner: its nodes connect, or end after a stop."""
        return runner.work()

    def step_link(self, runner: InProcessRunner, daemon: SimulatedDaemon) -> bool:
        link = runner.link
        if link is not None:
            link.slow = self.slow
            if daemon.link_problem is not None and runner.lives and link.problem is None:
                link.problem = daemon.link_problem
                daemon.report_runner(runner)
                return True
        return super().step_link(runner, daemon)

    # -------------------------------------------------------------------- commands

    def _execute_all(self, commands: list[Command]) -> None:
        try:
            super()._execute_all(commands)
        except Crashed:
            self.kill_coordinator()

    def _execute(self, command: Command) -> None:
        if self.crash_in and isinstance(command, WRITES):
            self.crash_in -= 1
            if not self.crash_in:
                raise Crashed
        match command:
            case coordinator_commands.CloseConnection(connection=number, last=last):
                if number in self._connections and last is not None:
                    self.log.append(f"refused: {last}")
            case coordinator_commands.Log(text=text):
                self.log.append(text)
            case coordinator_commands.AnswerClient(client=number):
                assert number not in self._decided
            case coordinator_commands.FailClient(client=number):
                assert number not in self._decided
            case coordinator_commands.SaveFleet(status=status, generations=generations):
                self.stored_fleet = status
                self.stored_generations |= {one.entry.generation: one for one in generations}
            case FleetStep():
                self._next_steps.append(command)
            case coordinator_commands.EndCoordinator():
                self.ended = True
        super()._execute(command)

    def _send(self, daemon: SimulatedDaemon, message: CoordinatorMessage) -> None:
        daemon.from_coordinator.append(TO_DAEMON.encode(message) if self.codec else message)

    # ---------------------------------------------------------------------- faults

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
        runner.finish(failed)

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
