"""Simulated fleet: the state machines of coordinator and daemons, without a node.

It has no processes, sockets or clock. Messages pass through the codecs as on the wire. Faults are
methods. Every step checks that no part has two living runners and that nothing is acknowledged
before it is stored.
"""

from __future__ import annotations

import asyncio
import atexit
import math
import uuid
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import anyio

from dora_config.protocol import daemon as protocol
from dora_config.protocol.control import ControlAnswer, ControlRequest, Decision, Failure
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.envelope import ProgramVersion
from dora_config.protocol.topics import StreamTopics
from dora_coordinator.coordinator import CoordinatorState
from dora_coordinator.queries.clients import RequestClient
from dora_coordinator.queries.cluster import QueryContext
from dora_coordinator.queries.daemon_calls import DaemonCalls, Reply
from dora_coordinator.queries.queries import Queries
from dora_coordinator.settings import Settings
from dora_coordinator.state import commands as do, events
from dora_coordinator.state.identities import Proof
from dora_coordinator.state.records import DataflowRecord
from dora_coordinator.telemetry.spans import SpanEvent
from dora_daemon.agent import events as agent_events
from dora_testing.cluster.link import SimulatedLink, Wall
from dora_testing.cluster.machine import InProcessMachine, InProcessRunner


class _Loop(asyncio.SelectorEventLoop):
    """Event loop of queries, with the clock of the last fleet."""

    now = 0.0

    def time(self) -> float:
        return self.now


LOOP = _Loop()
atexit.register(LOOP.close)


def in_loop(work: Callable[[], None]) -> None:
    """Call a function that needs a running event loop."""

    async def run() -> None:
        work()

    if LOOP.is_running():
        work()
    else:
        LOOP.run_until_complete(run())


async def _turns() -> None:
    """Let all tasks run until they wait."""
    for _ in range(20):
        await asyncio.sleep(0)


COORDINATOR = ProgramVersion(program="coordinator", release="1")
DAEMON = ProgramVersion(program="daemon", release="1")

M = TypeVar("M", bound=InProcessMachine[Any])


class InProcessFleet(Generic[M]):
    """A coordinator, its store, the daemons of machines, and the network between them."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.now = 1000.0
        self.store: dict[str, tuple[DataflowRecord, DataflowSpec]] = {}
        self.timers: dict[events.TimerKey, float] = {}
        self.daemons: dict[str, M] = {}
        self.answers: dict[int, ControlAnswer] = {}
        self.failures: dict[int, Failure] = {}
        self.walls: set[Wall] = set()
        """Pairs of machines whose links cannot reach each other."""
        self._last_port = 0
        self.coordinator: CoordinatorState | None = None
        self._connections: dict[int, M] = {}
        self._by_key: dict[str, int] = {}
        self._last_connection = 0
        self._last_request = 0
        for task in asyncio.all_tasks(LOOP):
            task.cancel()
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_decision = 0
        self._decided: dict[int, do.Begun | ControlAnswer | do.RequestRefused] = {}
        self._changed = anyio.Event()
        self.spans: Callable[[Sequence[SpanEvent]], None] = lambda spans: None
        """Receives the spans of queries."""
        self._begin_queries()
        self.start_coordinator()

    def _begin_queries(self) -> None:
        self._calls = DaemonCalls(self._send_to_daemon)
        self._queries = Queries(COORDINATOR)

    # ------------------------------------------------------------------- processes

    def start_coordinator(self) -> None:
        assert self.coordinator is None
        self.coordinator = self._make_coordinator()
        self.handle(self._loaded())

    def _make_coordinator(self) -> CoordinatorState:
        return CoordinatorState(self.settings, COORDINATOR)

    def _loaded(self) -> events.StoreLoaded:
        return events.StoreLoaded(tuple(self.store.values()))

    def kill_coordinator(self) -> None:
        """SIGKILL: connections break; timers and everything not stored are lost."""
        self.coordinator = None
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()
        self._begin_queries()
        self.timers.clear()
        self._by_key.clear()
        for daemon in self.daemons.values():
            self._hang_up(daemon)

    def add(self, daemon: M) -> None:
        """Add a machine and start its daemon."""
        self.daemons[daemon.name] = daemon
        self.start_daemon(daemon)

    def start_daemon(self, daemon: M) -> None:
        daemon.start(self.now)
        self.connect(daemon)

    def kill_daemon(self, daemon: M) -> None:
        """SIGKILL: runners continue, their events are lost."""
        daemon.agent = None
        daemon.runner_events.clear()
        self.disconnect(daemon)

    def reboot(self, daemon: M) -> None:
        """Power off: only the disk survives."""
        if daemon.agent is not None:
            self.kill_daemon(daemon)
        daemon.boots += 1
        daemon.runners.clear()

    # ------------------------------------------------------------------- network

    def connect(self, daemon: M) -> None:
        if self.coordinator is None or daemon.agent is None:
            return
        self._last_connection += 1
        daemon.connection = self._last_connection
        daemon.to_coordinator.clear()
        daemon.from_coordinator.clear()
        self._connections[daemon.connection] = daemon
        registration = protocol.Register(
            party=DAEMON,
            instance=daemon.instance,
            incarnation=str(daemon.incarnation),
            machine_id=daemon.machine_id,
            boot_id=str(daemon.boots),
            parts=daemon.agent.parts.reports(),
            stored_ends=daemon.agent.parts.stored_ends(),
            public_key=daemon.machine_id or daemon.instance,
        )
        daemon.send(registration)

    def disconnect(self, daemon: M) -> None:
        """Break the connection; both sides notice at once."""
        number = daemon.connection
        if number is None:
            return
        self._hang_up(daemon)
        lost = partial(self._calls.daemon_lost, daemon.key)
        self.handle(events.DaemonDisconnected(number), lost)

    def _hang_up(self, daemon: M) -> None:
        if daemon.connection is not None:
            self._connections.pop(daemon.connection, None)
            daemon.disconnected(self.now)
        daemon.connection = None
        daemon.to_coordinator.clear()
        daemon.from_coordinator.clear()

    # --------------------------------------------------------------------- clients

    def request(self, request: ControlRequest) -> int:
        """Send a client's request; return the number of its answer."""
        self._last_request += 1
        number = self._last_request
        self._tasks.add(LOOP.create_task(self._answer(number, request)))
        self._run_queries()
        return number

    async def _answer(self, number: int, request: ControlRequest) -> None:
        assert self.coordinator is not None
        client = self._client(number)
        cluster = QueryContext(
            self.coordinator,
            self._calls,
            self.handle,
            self._store_change,
            self._decide,
            self._next_change,
            lambda spans: self.spans(spans),
        )
        with client.scope:
            try:
                self.answers[number] = await self._queries.answer(request, cluster, client)
            except do.RequestRefused as problem:
                self.failures[number] = Failure(
                    id=number, message=str(problem), code=problem.code, ended=problem.ended
                )

    def _client(self, number: int) -> RequestClient:
        return RequestClient(number)

    async def _next_change(self) -> None:
        await self._changed.wait()

    def _run_queries(self) -> None:
        """Run queries until all of them wait."""
        self._tasks = {task for task in self._tasks if not task.done()}
        if not self._tasks:
            return
        LOOP.now = self.now
        if not LOOP.is_running():
            LOOP.run_until_complete(_turns())

    def _send_to_daemon(self, daemon: str, message: protocol.CoordinatorMessage) -> bool:
        connected = self.coordinator is not None and self.coordinator.membership.is_connected(
            daemon
        )
        if connected:
            self._execute(do.SendToDaemon(daemon, message))
        return connected

    async def _store_change(self, dataflow_id: str, change: events.DataflowChange | None) -> None:
        self._last_decision += 1
        self.handle(events.ChangeRequested(self._last_decision, dataflow_id, change))
        self._decided.pop(self._last_decision, None)

    async def _decide(self, request: Decision) -> do.Begun | ControlAnswer:
        self._last_decision += 1
        number = self._last_decision
        fresh = str(uuid.uuid5(uuid.NAMESPACE_OID, str(number)))
        self.handle(events.ClientRequested(number, request, fresh))
        if number not in self._decided:  # the coordinator was killed
            await asyncio.sleep(math.inf)
        answer = self._decided.pop(number)
        if isinstance(answer, do.RequestRefused):
            raise answer
        return answer

    # ----------------------------------------------------------------------- steps

    def handle(self, event: events.Event, then: Callable[[], None] | None = None) -> None:
        """Let the coordinator handle an event; ``then``: the event as queries receive it."""
        if isinstance(event, events.DaemonMessageReceived) and isinstance(event.message, Reply):
            daemon = self._connections.get(event.connection)
            if daemon is not None:
                then = partial(self._calls.replied, daemon.key, event.message)
        if self.coordinator is not None:
            self._execute_all(self.coordinator.handle(event, self.now))
        if then is not None:
            in_loop(then)
        self._changed.set()
        self._changed = anyio.Event()
        self._run_queries()

    def step_to_coordinator(self, daemon: M) -> bool:
        """Deliver one message of a daemon; return whether there was one."""
        if not daemon.to_coordinator or daemon.connection is None:
            if daemon.agent is None:
                self.disconnect(daemon)
            return False
        self._receive(daemon, daemon.to_coordinator.popleft())
        return True

    def _receive(self, daemon: M, message: protocol.DaemonMessage) -> None:
        """Let the coordinator handle a message of a daemon."""
        assert daemon.connection is not None
        number = daemon.connection
        if isinstance(message, protocol.Register):
            proof = Proof(message.public_key)
            self.handle(events.DaemonRegistered(number, message, f"{daemon.name}:1", proof))
        else:
            self.handle(events.DaemonMessageReceived(number, message))

    def step_to_daemon(self, daemon: M) -> bool:
        """Deliver one message to a daemon; return whether there was one."""
        if not daemon.from_coordinator or daemon.agent is None:
            return False
        self._deliver(daemon, daemon.from_coordinator.popleft())
        return True

    def _deliver(self, daemon: M, message: protocol.CoordinatorMessage) -> None:
        """Let a daemon handle a message of the coordinator."""
        match message:
            case protocol.Registered():
                daemon.connected(self.now)
            case protocol.RegistrationRefused():
                self.disconnect(daemon)
            case protocol.DaemonCall():
                daemon.answer(message, self.now)
            case protocol.StreamLogs() | StreamTopics():
                daemon.read(message)
            case _ if isinstance(message, agent_events.PartMessage | protocol.EndDaemon):
                self._agent(daemon, message)

    def step_runner_event(self, daemon: M) -> bool:
        """Deliver one event of a runner to its daemon."""
        if not daemon.runner_events or daemon.agent is None:
            return False
        self._agent(daemon, daemon.runner_events.popleft())
        return True

    def step_link(self, runner: InProcessRunner, daemon: M) -> bool:
        """Advance a link: it listens or tries its peers; return whether it reported anything."""
        link = runner.link
        if link is None or not runner.lives or link.problem is not None:
            return False
        if link.endpoint is None:
            self._last_port += 1
            link.endpoint = f"{daemon.name}:{self._last_port}"
        elif not link.try_peers(self._links(runner.dataflow_id), self.walls):
            return False
        daemon.report_runner(runner)
        return True

    def _links(self, dataflow_id: str) -> list[SimulatedLink]:
        """Return the links of all living runners of a dataflow."""
        living = (runner for d in self.daemons.values() for runner in d.living(dataflow_id))
        return [runner.link for runner in living if runner.link is not None]

    def fire_due(self) -> None:
        due = [key for key, at in self.timers.items() if at <= self.now]
        for key in due:
            if key in self.timers:
                del self.timers[key]
                self.handle(events.TimerFired(key))
        self._run_queries()

    def ordered(self) -> Iterable[M]:
        """Return the machines in the order in which their messages arrive."""
        return self.daemons.values()

    def settle(self) -> None:
        """Deliver all messages and events; the clock does not move."""
        for _ in range(10_000):
            moved = False
            for daemon in self.ordered():
                moved |= self.step_to_coordinator(daemon)
                moved |= self.step_to_daemon(daemon)
                moved |= self.step_runner_event(daemon)
                for runner in list(daemon.runners):
                    moved |= runner.work()
                    moved |= self.step_link(runner, daemon)
            if not moved:
                return
        raise AssertionError("the fleet does not come to rest")

    def pass_time(self, seconds: float, *, heartbeats: bool = True, step: float = 1.0) -> None:
        """Let time pass in steps, with heartbeats of every daemon that is connected."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + step)
            for daemon in self.daemons.values():
                if heartbeats and daemon.connection is not None:
                    assert daemon.agent is not None
                    daemon.send(protocol.Heartbeat(parts=daemon.agent.parts.reports()))
                daemon.pass_time(self.now)
            self.fire_due()
            self.settle()

    # -------------------------------------------------------------------- commands

    def _execute_all(self, commands: list[do.Command]) -> None:
        for command in commands:
            self._execute(command)

    def _execute(self, command: do.Command) -> None:
        match command:
            case do.SaveRecord(record=record, spec=spec, removed=removed):
                known, stored = self.store.get(record.dataflow_id, (None, None))
                kept = spec or stored
                assert kept is not None, "saved without a specification"
                merged = (*(known.parts if known else ()), *record.parts)
                parts = {part.daemon: part for part in merged}
                left = tuple(part for key, part in parts.items() if key not in removed)
                self.store[record.dataflow_id] = record.model_copy(update={"parts": left}), kept
            case do.DeleteRecord(dataflow_id=dataflow_id):
                del self.store[dataflow_id]
            case do.SendToDaemon(daemon=key, message=message):
                number = self._by_key.get(key)
                if number in self._connections:
                    self._send(self._connections[number], message)
            case do.AdmitDaemon(connection=number, daemon=key):
                self._by_key[key] = number
            case do.CloseConnection(connection=number):
                if number in self._connections:
                    self._hang_up(self._connections[number])
            case do.AnswerClient(client=number, answer=answer):
                self._decided[number] = answer
            case do.FailClient(client=number, problem=problem):
                self._decided[number] = problem
            case do.ArmTimer(key=key, at=at):
                self.timers[key] = at
            case do.CancelTimer(key=key):
                self.timers.pop(key, None)
            case _:  # lines of the log, and what is not simulated
                pass

    def _send(self, daemon: M, message: protocol.CoordinatorMessage) -> None:
        daemon.from_coordinator.append(message)

    def _agent(self, daemon: M, event: agent_events.Event) -> None:
        daemon.handle(event, self.now)
        if daemon.agent is None:
            number = daemon.connection
            while self.step_to_coordinator(daemon):  # its last messages are sent
                pass
            if number is not None and daemon.connection == number:
                self.disconnect(daemon)
