"""Service of the coordinator's state machine: clock, inbox, timers, store; executes its commands.

Events are handled in batches. Everything that a batch saves is one transaction, which is durable
before any message of the batch is sent.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import anyio
import anyio.lowlevel
import anyio.to_thread

from dora_config.errors import first_error
from dora_config.history.entries import HistoryEntry, SavedEntry
from dora_config.history.file import HistoryFile, read_history
from dora_config.process_identity import boot_id
from dora_config.protocol import daemon as messages
from dora_config.protocol.builds import BuildDataflow
from dora_config.protocol.calls import LinkPart
from dora_config.protocol.claims import Claim
from dora_config.protocol.control import (
    Answer,
    CallRunner,
    ChangeGraph,
    ControlAnswer,
    ControlRequest,
    Decision,
    Destroy,
    Destroyed,
    Failure,
    ReadLogs,
    WaitForEnd,
    WatchTopics,
)
from dora_config.protocol.envelope import ProgramVersion, clean_lines
from dora_config.protocol.recordings import CallRecorders
from dora_coordinator.coordinator import CoordinatorState
from dora_coordinator.io.authority import Authority
from dora_coordinator.io.connections import DaemonConnection, Renewal
from dora_coordinator.io.credentials import MachineCredentials
from dora_coordinator.io.fleet_steps import carry_out
from dora_coordinator.io.provenance import Provenance
from dora_coordinator.io.standbys import Standbys
from dora_coordinator.io.store import NotWritten, Store
from dora_coordinator.io.succession import SuccessionFile
from dora_coordinator.io.timers import TimerQueue
from dora_coordinator.io.token_file import TokenFile
from dora_coordinator.queries.clients import RequestClient
from dora_coordinator.queries.cluster import QueryContext
from dora_coordinator.queries.daemon_calls import DaemonCalls, Reply
from dora_coordinator.queries.queries import Queries, find_code
from dora_coordinator.settings import Settings
from dora_coordinator.state import commands as do
from dora_coordinator.state.commands import RequestRefused
from dora_coordinator.state.events import (
    ChangeRequested,
    ClientRequested,
    DaemonDisconnected,
    DaemonMessageReceived,
    DaemonRegistered,
    DataflowChange,
    Event,
    FleetStep,
    TimerFired,
)
from dora_coordinator.state.identities import Proof
from dora_coordinator.state.membership import MAX_DELAY
from dora_coordinator.state.succession import Succession, SuccessionRecord
from dora_coordinator.telemetry.spans import SpanReports

BATCH = 512
"""Events handled before their commands are executed."""
MAX_HISTORY_LINES = 5_000
"""Lines appended to the history file before it is replaced by the events that are kept."""
INTERNAL_ERROR = "internal error of the coordinator; see its log"
RETRY = 5.0
"""Seconds between attempts to write to a store that failed."""

_BY_DAEMONS = (
    CallRunner | CallRecorders | ChangeGraph | BuildDataflow | ReadLogs | WatchTopics | WaitForEnd
)
"""Refused while the store cannot be written, as no daemon is connected then."""

logger = logging.getLogger("dora.coordinator")
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class _AnswerLost(Exception):
    """The coordinator is ending, or cannot write to its store."""


@dataclass(slots=True)
class _Waiting:
    """Waits for the answer to an event."""

    _ended: anyio.Event = field(default_factory=anyio.Event)
    _answer: do.Begun | ControlAnswer | RequestRefused | None = None

    def end(self, answer: do.Begun | ControlAnswer | RequestRefused | None) -> None:
        """Answer it, unless that was done; None: the answer is lost."""
        if not self._ended.is_set():
            self._answer = answer
            self._ended.set()

    async def wait(self) -> do.Begun | ControlAnswer:
        """Raises RequestRefused and _AnswerLost."""
        await self._ended.wait()
        if isinstance(self._answer, RequestRefused):
            raise self._answer
        if self._answer is None:
            raise _AnswerLost
        return self._answer


class Service:
    """Runs on one event loop. Methods that the server calls queue events; only `request` waits."""

    def __init__(
        self,
        settings: Settings,
        party: ProgramVersion,
        store: Store,
        authority: Authority,
        tokens: TokenFile | None = None,
        history: HistoryFile | None = None,
        succession: tuple[SuccessionFile, SuccessionRecord] | None = None,
    ) -> None:
        """``tokens`` None: no authentication; ``history`` None: events are kept in memory only."""
        file, record = succession or (SuccessionFile(None), None)
        if record is None:
            record = SuccessionRecord(claim=authority.sign_claim(Claim()))
        self.succession = Succession(record, authority.sign_claim)
        self.settings = settings
        self.party = party
        self.authority = authority
        self._provenance = Provenance(authority)
        self._store = store
        self._history = history
        self._inbox: deque[Event] = deque()
        self._wake = anyio.Event()
        self._connections: dict[int, DaemonConnection] = {}
        self._by_daemon: dict[str, DaemonConnection] = {}
        self._credentials = MachineCredentials(authority, tokens, self._by_daemon)
        self.standbys = Standbys(
            self.succession, file, store, authority, tokens, self._by_daemon, self._wake_up
        )
        self._waiting: dict[int, _Waiting] = {}
        """Waits for answers to events."""
        self._clients: set[RequestClient] = set()
        """Clients whose request is being answered from this state."""
        self._last_number = 0
        self.spans = SpanReports()
        self._timers = TimerQueue()
        self._steps: deque[FleetStep] = deque()
        """Steps of roll-outs that are to be carried out."""
        self._step_added = anyio.Event()
        self._ending = False
        self._state = self._new_state()
        self._loaded = anyio.Event()
        self._unwritable: str | None = None
        """Why the store cannot be written now."""
        self._changed = _Waiting()
        """Ends after the next events."""
        self._calls = DaemonCalls(self._send_to_daemon)
        self._queries = Queries(self._calls, settings, party)

    def _new_state(self) -> CoordinatorState:
        return CoordinatorState(
            self.settings,
            self.party,
            self.authority.fingerprint,
            wall_offset=time.time() - time.monotonic(),
            succession=self.succession,
        )

    async def _load(self) -> list[do.Command]:
        """Begin with a new state machine and what is stored."""
        state = self._new_state()
        self._timers = TimerQueue()
        self.succession.number = await anyio.to_thread.run_sync(self._store.number)
        stored = await anyio.to_thread.run_sync(self._store.load)
        history = await anyio.to_thread.run_sync(self._read_history)
        commands = state.handle(replace(stored, history=history), anyio.current_time())
        self._state = state
        self._loaded.set()
        return commands

    def _read_history(self) -> list[SavedEntry]:
        if self._history is not None:
            try:
                entries = read_history(self._history.path)
                self._history.lines = len(entries)
                return entries
            except FileNotFoundError:
                pass
            except OSError as error:
                logger.warning("%s: cannot be read: %s", self._history.path, error.strerror)
        return []

    def _append_history(self, entry: HistoryEntry) -> None:
        if self._history is None:
            return
        problem = self._history.append(entry)
        if self._history.lines > MAX_HISTORY_LINES:
            kept = self._state.registry.history.saved()
            problem = self._history.replace(kept) or problem
        if problem is not None:
            logger.warning("%s", problem)

    async def run(self) -> None:
        """Work until a client ends the coordinator; cancel to end it otherwise.

        While the store cannot be written, clients and daemons see a coordinator that was restarted
        and refuses all changes with the reason. Raises StoreError if the store cannot be read.
        """
        failed = False
        while not self._ending:
            if (reason := self.succession.refusal) is not None:
                await self._stand_aside(reason)
                return
            try:
                await self._execute_all(await self._load())
                if failed:
                    logger.info("the store %s can be written again", self._store.name)
                failed = False
                self._unwritable = None
                await self._work()
            except NotWritten as error:
                self._loaded = anyio.Event()  # queries must not see what was not stored
                self._unwritable = str(error)
                if not failed:
                    logger.error("%s", error)
                    await self._hang_up_all()
                failed = True
                await self._serve_read_only(str(error))

    async def _work(self) -> None:
        while not self._ending and self.succession.refusal is None:
            await self._wait_for_work()
            if self.succession.refusal is not None:
                return  # what waits is refused
            now = anyio.current_time()
            events = [self._inbox.popleft() for _ in range(min(len(self._inbox), BATCH))]
            commands = [command for event in events for command in self._handle(event, now)]
            for key in self._timers.due(now):
                commands += self._handle(TimerFired(key), now)
            try:
                await self._execute_all(commands)
            except NotWritten as error:
                self._refuse(events, str(error))
                raise
            self._calls.end_lost(self._state.membership.is_connected)
            changed, self._changed = self._changed, _Waiting()
            changed.end(do.Begun(()))

    async def _hang_up_all(self) -> None:
        """Close all connections; their requests are lost with the state."""
        await anyio.lowlevel.checkpoint()  # refusals are sent first
        self._end_clients()
        self._changed = _Waiting()
        for connection in self._connections.values():
            self._hang_up(connection)

    async def _stand_aside(self, reason: str) -> None:
        """Change nothing any more, because another coordinator leads."""
        logger.error("%s", reason)
        self._unwritable = reason
        await self._hang_up_all()
        while not self._ending:
            await self._serve_read_only(reason)

    async def _serve_read_only(self, reason: str) -> None:
        """Refuse changes for RETRY seconds; queries are answered from what is stored."""
        await self._load()
        with anyio.move_on_after(RETRY):
            while not self._ending:
                await self._wait_for_work()
                self._refuse(self._inbox, reason)
                self._inbox.clear()

    def _handle(self, event: Event, now: float) -> list[do.Command]:
        """Handle an event; a defect in one event must not end the coordinator of a fleet."""
        began = anyio.current_time()
        try:
            commands = self._state.handle(event, now)
        except Exception:
            logger.exception("internal error, please report it; event: %s", type(event))
            if isinstance(event, ClientRequested | ChangeRequested):
                return [do.FailClient(event.client, RequestRefused("failed", INTERNAL_ERROR))]
            return []
        daemon = None
        if isinstance(event, DaemonMessageReceived):
            connection = self._connections.get(event.connection)
            daemon = None if connection is None else connection.daemon
        self.spans.observe(event, commands, daemon, began)
        return commands

    def _refuse(self, events: Iterable[Event], reason: str) -> None:
        """Refuse what clients and daemons requested with events whose changes were not stored."""
        for event in events:
            match event:
                case ClientRequested(request=Destroy()) if self.succession.refusal is not None:
                    self._answered(event.client, Destroyed())
                    self._ending = True
                case ClientRequested() | ChangeRequested():
                    self._answered(event.client, RequestRefused("failed", reason))
                case DaemonRegistered(connection=connection):
                    refusal = messages.RegistrationRefused(message=reason)
                    self._execute(do.CloseConnection(connection, refusal))
                case _:
                    pass  # of connections that are being closed

    async def _wait_for_work(self) -> None:
        if self._inbox:
            return
        self._wake = anyio.Event()
        until = self._timers.next()
        timeout = None if until is None else max(0.0, until - anyio.current_time())
        with anyio.move_on_after(timeout):
            await self._wake.wait()

    async def flush(self, *, within: float) -> None:
        """Close all connections after sending what is queued; give up after ``within`` seconds."""
        self._ending = True
        await anyio.lowlevel.checkpoint()  # the last answers are sent first
        self._end_clients()
        for connection in list(self._connections.values()):
            self._hang_up(connection)
        with anyio.move_on_after(within):
            while self._connections:
                self._wake = anyio.Event()
                await self._wake.wait()

    # ------------------------------------------------------------ called by the server

    def code_digest(self, build: str, node_id: str) -> str:
        """Return the digest of a node's code; raises FileRefused."""
        return find_code(self._state.registry, build, node_id)

    def connect(self, address: str, renewal: Renewal) -> DaemonConnection:
        self._last_number += 1
        connection = DaemonConnection(self._last_number, address, renewal)
        self._connections[connection.number] = connection
        return connection

    def disconnect(self, connection: DaemonConnection) -> None:
        """The socket is closed, by either side."""
        connection.hang_up()
        del self._connections[connection.number]
        if connection.daemon and self._by_daemon.get(connection.daemon) is connection:
            del self._by_daemon[connection.daemon]
        self._post(DaemonDisconnected(connection.number))

    def _hang_up(self, connection: DaemonConnection) -> None:
        if connection.daemon and self._by_daemon.get(connection.daemon) is connection:
            self._calls.daemon_lost(connection.daemon)
        connection.hang_up()

    def on_register(
        self, connection: DaemonConnection, register: messages.Register, proof: Proof
    ) -> None:
        connection.same_host = register.boot_id == boot_id() != ""
        register = self._provenance.registration(register)
        self._post(DaemonRegistered(connection.number, register, connection.address, proof))

    def on_message(self, connection: DaemonConnection, message: messages.DaemonMessage) -> None:
        offset = None
        if isinstance(message, messages.Heartbeat) and message.time is not None:
            offset = message.time - time.time()
            if connection.same_host and abs(offset) < MAX_DELAY:
                offset = 0.0
        if isinstance(message, messages.CopyKept):
            self.standbys.changed()
        if isinstance(message, Reply) and connection.daemon:
            self._calls.replied(connection.daemon, message)
        message = self._provenance.message(connection.daemon or "", message)
        self._post(DaemonMessageReceived(connection.number, message, offset))

    async def request(
        self, request: ControlRequest, client: RequestClient | None = None
    ) -> Answer | Failure | None:
        """Answer one request; cancel it to drop the request.

        None: its answer was lost, because the coordinator is ending or cannot write to its store.
        """
        client = client or RequestClient()
        with client.scope:
            try:
                await self._loaded.wait()
                self._clients.add(client)
                if self._unwritable is not None and isinstance(request, _BY_DAEMONS):
                    raise RequestRefused("failed", self._unwritable)
                client.answer(await self._queries.answer(request, self._cluster(), client))
            except Exception as error:
                match first_error(error):
                    case RequestRefused() as problem:
                        client.fail(str(problem), problem.code, problem.ended)
                    case _AnswerLost():
                        pass
                    case _:  # a defect in one request must not end the coordinator of a fleet
                        text = "internal error, please report it; request: %s"
                        logger.exception(text, type(request))
                        client.fail(INTERNAL_ERROR)
            finally:
                self._clients.discard(client)
        return client.frame

    def _cluster(self) -> QueryContext:
        return QueryContext(
            self._state,
            self._calls,
            self._post,
            self._store_change,
            self._decide,
            partial(self._next_change, self._state),
            self.spans.report,
        )

    async def _next_change(self, state: CoordinatorState) -> None:
        """Wait until ``state`` has handled further events; raises _AnswerLost at its end."""
        await self._changed.wait()
        if self._state is not state:
            raise _AnswerLost

    def _send_to_daemon(self, daemon: str, message: messages.CoordinatorMessage) -> bool:
        """Return whether the daemon is connected."""
        connected = daemon in self._by_daemon and self._state.membership.is_connected(daemon)
        if connected:
            self._by_daemon[daemon].send(messages.TO_DAEMON.encode(message))
        return connected

    async def _store_change(self, dataflow_id: str, change: DataflowChange | None) -> None:
        """Raises RequestRefused if it was not stored."""
        try:
            await self._answer_to(lambda number: ChangeRequested(number, dataflow_id, change))
        except _AnswerLost as lost:
            raise RequestRefused("failed", "the coordinator is ending") from lost

    async def _decide(self, request: Decision) -> do.Begun | ControlAnswer:
        fresh = str(uuid.uuid4())
        return await self._answer_to(lambda number: ClientRequested(number, request, fresh))

    async def _answer_to(self, event: Callable[[int], Event]) -> do.Begun | ControlAnswer:
        """Return the answer to an event, which gets the number of the one that waits for it.

        Raises RequestRefused and _AnswerLost.
        """
        if self._ending:
            raise _AnswerLost
        self._last_number += 1
        number = self._last_number
        waiting = self._waiting[number] = _Waiting()
        self._post(event(number))
        try:
            return await waiting.wait()
        finally:
            del self._waiting[number]

    async def carry_out_steps(self) -> None:
        """Carry out the steps of the fleet's roll-outs, beside `run`; cancel it to end."""
        async with anyio.create_task_group() as tasks:
            while True:
                while self._steps:
                    tasks.start_soon(self._carry_out, self._steps.popleft())
                self._step_added = anyio.Event()
                await self._step_added.wait()

    async def _carry_out(self, step: FleetStep) -> None:
        self._post(await carry_out(step, self.request))

    async def fetch_code(self, digests: Sequence[str]) -> None:
        """Let connected machines upload files of code; raises FileRefused."""
        await self._calls.fetch_code(self._by_daemon, digests)

    def _answered(self, number: int, answer: do.Begun | ControlAnswer | RequestRefused) -> None:
        if (waiting := self._waiting.get(number)) is not None:
            waiting.end(answer)

    def _end_clients(self) -> None:
        """End all requests; those that continue without their client get no more answers."""
        for client in self._clients:
            client.scope.cancel()
        for waiting in (self._changed, *self._waiting.values()):
            waiting.end(None)

    def _post(self, event: Event) -> None:
        self._inbox.append(event)
        self._wake_up()

    def _wake_up(self) -> None:
        self._wake.set()

    # ------------------------------------------------------------------- commands

    async def _execute_all(self, commands: Sequence[do.Command]) -> None:
        changes = [c for c in commands if isinstance(c, do.Change)]
        if changes:
            self.succession.number = await anyio.to_thread.run_sync(self._apply, changes)
            self.standbys.changed()
        for command in commands:
            self._execute(command)

    def _apply(self, changes: Sequence[do.Change]) -> int:
        self._store.apply(changes)
        return self._store.number()

    def _execute(self, command: do.Command) -> None:
        match command:
            case do.SaveRecord() | do.DeleteRecord() | do.SaveMachine() | do.SaveFleet():
                pass  # executed for the whole batch
            case do.SaveSuccession():
                self.standbys.save()
            case FleetStep():
                self._steps.append(command)
                self._step_added.set()
            case do.AppendHistory(entry=entry):
                self._append_history(entry)
            case do.SendToDaemon(daemon=daemon, message=message):
                connection = self._by_daemon.get(daemon)
                if connection is not None:
                    connection.send(messages.TO_DAEMON.encode(self._signed(message)))
            case do.RenewToken(daemon=daemon):
                self._credentials.renew_token(daemon, Renewal.NOW)
            case do.RotateToken(client=client, grace=grace, daemons=daemons):
                self._rotate_token(client, grace, daemons)
            case do.SignCertificate(daemon=daemon, request=request, digest=digest):
                self._credentials.send_certificate(daemon, request, digest)
            case do.AnswerClient(client=number, answer=answer):
                self._answered(number, answer)
            case do.FailClient(client=number, problem=problem):
                self._answered(number, problem)
            case do.AdmitDaemon(connection=number, daemon=daemon):
                self._calls.daemon_lost(daemon)  # what its earlier connection was to answer
                admitted = self._connections.get(number)
                if admitted is not None:
                    admitted.daemon = daemon
                    self._by_daemon[daemon] = admitted
                    self.standbys.changed()
            case do.CloseConnection(connection=number, last=last):
                connection = self._connections.get(number)
                if connection is not None:
                    if last is not None:
                        connection.send(messages.TO_DAEMON.encode(last))
                    self._hang_up(connection)
            case do.ArmTimer(key=key, at=at):
                self._timers.arm(key, at)
            case do.CancelTimer(key=key):
                self._timers.cancel(key)
            case do.Log(level=level, text=text):
                logger.log(_LEVELS[level], "%s", clean_lines(text))
            case do.EndCoordinator():
                self._ending = True

    def _signed(self, message: messages.CoordinatorMessage) -> messages.CoordinatorMessage:
        """Sign what the machine keeps of a dataflow."""
        if not isinstance(message, messages.PreparePart | LinkPart):
            return message
        dataflow = self._state.registry.get(message.dataflow_id)
        return self._provenance.signed(message, None if dataflow is None else dataflow.spec.name)

    def _rotate_token(self, client: int, grace: float, daemons: Sequence[str]) -> None:
        try:
            answer = self._credentials.rotate_token(grace, daemons)
        except RequestRefused as problem:
            self._answered(client, problem)
            return
        self.succession.send_again()
        self.standbys.changed()
        self._answered(client, answer)
