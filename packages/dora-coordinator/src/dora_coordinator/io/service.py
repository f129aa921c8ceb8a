"""Service of the coordinator's state machine: clock, inbox, timers, store; executes its commands.

Events are handled in batches. Everything that a batch saves is one transaction, which is durable
before any message of the batch is sent.
"""

from __future__ import annotations

import heapq
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

from dora_config.access import Endpoint, split_address
from dora_config.errors import first_error, os_error_text
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
    TokenRotated,
    WaitForEnd,
    WatchTopics,
)
from dora_config.protocol.envelope import ProgramVersion, clean_lines, clean_text
from dora_config.protocol.recordings import CallRecorders
from dora_coordinator.coordinator import CoordinatorState
from dora_coordinator.io.authority import Authority, AuthorityError
from dora_coordinator.io.connections import Connection, Renewal
from dora_coordinator.io.fleet_steps import carry_out
from dora_coordinator.io.provenance import Provenance
from dora_coordinator.io.store import NotWritten, Store, StoreError
from dora_coordinator.io.succession import CopyError, SuccessionFile, ask, make_copy
from dora_coordinator.io.token_file import TokenFile
from dora_coordinator.queries.clients import Client
from dora_coordinator.queries.cluster import Cluster
from dora_coordinator.queries.daemon_calls import DaemonCalls, Reply
from dora_coordinator.queries.queries import Queries, find_code
from dora_coordinator.settings import Settings
from dora_coordinator.state import commands as do
from dora_coordinator.state.code_search import CodeSearch
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
    TimerKey,
)
from dora_coordinator.state.identities import Proof
from dora_coordinator.state.membership import MAX_DELAY
from dora_coordinator.state.succession import Succession, SuccessionRecord
from dora_coordinator.telemetry.spans import SpanEvent, SpanTracker

BATCH = 512
"""Events handled before their commands are executed."""
MAX_HISTORY_LINES = 5_000
"""Lines appended to the history file before it is replaced by the events that are kept."""
INTERNAL_ERROR = "internal error of the coordinator; see its log"
RETRY = 5.0
"""Seconds between attempts to write to a store that failed."""
COPY_PAUSE = 0.2
"""Seconds in which changes are collected for one copy."""
COPY_SHARE = 4.0
"""A pause is at least so many times as long as making the last copy took."""
LOOK_SECONDS = 5.0
"""Seconds within which a machine answers whether it has a file."""
ASK_EVERY = 5.0
"""Seconds between questions to the standbys whether one has taken over."""

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
        self._succession_file, record = succession or (SuccessionFile(None), None)
        if record is None:
            record = SuccessionRecord(claim=authority.sign_claim(Claim()))
        self.succession = Succession(record, authority.sign_claim)
        self._copy_wanted = anyio.Event()
        self.settings = settings
        self.party = party
        self.authority = authority
        self._provenance = Provenance(authority)
        self._tokens = tokens
        self._store = store
        self._history = history
        self._inbox: deque[Event] = deque()
        self._wake = anyio.Event()
        self._connections: dict[int, Connection] = {}
        self._by_daemon: dict[str, Connection] = {}
        self._waiting: dict[int, _Waiting] = {}
        """Those that wait for an answer to an event."""
        self._clients: set[Client] = set()
        """Those whose request is being answered from this state."""
        self._last_number = 0
        self._spans: tuple[SpanTracker, Callable[[Sequence[SpanEvent]], None]] | None = None
        self._timers: list[tuple[float, int, TimerKey]] = []
        self._armed: dict[TimerKey, int] = {}
        self._timer_count = 0
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
        self._timers.clear()
        self._armed.clear()
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
            for key in self._due(now):
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
        if self._spans is not None:
            self._trace(event, commands, began)
        return commands

    def trace(self, handle: Callable[[Sequence[SpanEvent]], None]) -> None:
        """Pass the spans of all further events to ``handle``."""
        self._spans = SpanTracker(), handle

    def _trace(self, event: Event, commands: Sequence[do.Command], began: float) -> None:
        assert self._spans is not None
        tracker, _ = self._spans
        daemon = None
        if isinstance(event, DaemonMessageReceived):
            connection = self._connections.get(event.connection)
            daemon = None if connection is None else connection.daemon
        ended = anyio.current_time()
        self._report(
            lambda: tracker.observe(event, commands, daemon=daemon, began=began, ended=ended)
        )

    def _report(self, observe: Callable[[], Sequence[SpanEvent]]) -> None:
        try:
            if self._spans is not None:
                self._spans[1](observe())
        except Exception:  # as above
            logger.exception("internal error, please report it; no more spans are exported")
            self._spans = None

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
        until = self._timers[0][0] if self._timers else None
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
        """Return the digest of a node's code; raises :class:`RequestRefused`."""
        return find_code(self._state.registry, build, node_id)

    def connect(self, address: str, renewal: Renewal) -> Connection:
        self._last_number += 1
        connection = Connection(self._last_number, address, renewal)
        self._connections[connection.number] = connection
        return connection

    def disconnect(self, connection: Connection) -> None:
        """The socket is closed, by either side."""
        connection.hang_up()
        del self._connections[connection.number]
        if connection.daemon and self._by_daemon.get(connection.daemon) is connection:
            del self._by_daemon[connection.daemon]
        self._post(DaemonDisconnected(connection.number))

    def _hang_up(self, connection: Connection) -> None:
        if connection.daemon and self._by_daemon.get(connection.daemon) is connection:
            self._calls.daemon_lost(connection.daemon)
        connection.hang_up()

    def on_register(
        self, connection: Connection, register: messages.Register, proof: Proof
    ) -> None:
        connection.same_host = register.boot_id == boot_id() != ""
        register = self._provenance.registration(register)
        self._post(DaemonRegistered(connection.number, register, connection.address, proof))

    def on_message(self, connection: Connection, message: messages.DaemonMessage) -> None:
        offset = None
        if isinstance(message, messages.Heartbeat) and message.time is not None:
            offset = message.time - time.time()
            if connection.same_host and abs(offset) < MAX_DELAY:
                offset = 0.0
        if isinstance(message, messages.CopyKept):
            self._copy_wanted.set()
        if isinstance(message, Reply) and connection.daemon:
            self._calls.replied(connection.daemon, message)
        message = self._provenance.message(connection.daemon or "", message)
        self._post(DaemonMessageReceived(connection.number, message, offset))

    async def request(
        self, request: ControlRequest, client: Client | None = None
    ) -> Answer | Failure | None:
        """Answer one request; cancel it to drop the request.

        None: its answer was lost, because the coordinator is ending or cannot write to its store.
        """
        client = client or Client()
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

    def _cluster(self) -> Cluster:
        return Cluster(
            self._state,
            self._calls,
            self._post,
            self._store_change,
            self._decide,
            partial(self._next_change, self._state),
            lambda spans: self._report(lambda: spans),
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
        """Let connected machines upload files of code, each machine a share of them.

        Raises FileRefused: 404 if none has one of them, 502 if none could upload it.
        """
        replies: dict[str, messages.CodeFound | str] = {}

        async def ask(machine: str, wanted: Sequence[str], *, upload: bool) -> None:
            sent = await self._calls.gather(
                [machine],
                lambda call: messages.SendCode(call=call, digests=tuple(wanted), upload=upload),
                messages.CodeFound,
                seconds=None if upload else LOOK_SECONDS,
            )
            replies[machine] = sent.found.get(machine) or sent.problems[machine]

        async with anyio.create_task_group() as tasks:
            for machine in self._by_daemon:
                tasks.start_soon(partial(ask, machine, digests, upload=False))
        search = CodeSearch(digests)
        for machine in sorted(replies):
            reply = replies[machine]
            search.found(machine, () if isinstance(reply, str) else reply.digests)
        while shares := search.shares():
            async with anyio.create_task_group() as tasks:
                for machine, share in shares.items():
                    tasks.start_soon(partial(ask, machine, share, upload=True))
            for machine in shares:
                reply = replies[machine]
                if isinstance(reply, str):
                    search.uploaded(machine, (), reply)
                else:
                    search.uploaded(machine, reply.digests, reply.problem)

    # ------------------------------------------------------------------ succession

    def consider(self, claim: Claim, source: str) -> None:
        """Stand aside for a coordinator with a higher rank, if the authority has signed its claim.

        ``source``: what has sent the claim, for the log.
        """
        leading = self.succession.leading
        if claim.rank <= leading.rank:
            return
        if claim.cluster != leading.cluster or not self.authority.has_signed(
            claim.text, claim.proof
        ):
            logger.error(
                "ignored a claim of %s for %s: it is not signed by the authority of this cluster; "
                "examine that machine",
                source,
                claim,
            )
            return
        logger.warning("%s has sent the claim of %s", source, claim)
        self.succession.replace(claim)
        self._succession_file.write(self.succession.record)
        self._wake.set()

    async def watch_successors(self) -> None:
        """Ask the standbys whether one has taken over, beside `run`; cancel it to end."""
        while self.succession.refusal is None:
            async with anyio.create_task_group() as tasks:
                for one in self.succession.record.standbys:
                    tasks.start_soon(self._ask, one.address)
            await anyio.sleep(ASK_EVERY)

    async def _ask(self, address: str) -> None:
        host, port = split_address(address)
        token = None if self._tokens is None else str(self._tokens.current)
        found = await anyio.to_thread.run_sync(
            ask, Endpoint(host, int(port), token), abandon_on_cancel=True
        )
        if found is not None:
            self.consider(found, f"the coordinator at {address}")

    async def send_copies(self) -> None:
        """Send each change of the store to the standbys, beside `run`; cancel it to end."""
        problem = ""
        while True:
            self._copy_wanted = anyio.Event()
            began = anyio.current_time()
            due = self.succession.due(self._by_daemon.keys(), anyio.current_time())
            if due:
                try:
                    await self._send_copy(due)
                    problem = ""
                except (StoreError, CopyError) as error:
                    if str(error) != problem:
                        logger.error("the standbys get no copy: %s", error)
                    problem = str(error)
            pause = max(COPY_PAUSE, COPY_SHARE * (anyio.current_time() - began))
            with anyio.move_on_after(RETRY):
                await self._copy_wanted.wait()
            await anyio.sleep(pause)

    async def copy(self) -> messages.CoordinatorCopy:
        """Return an encrypted copy of the present state; raises StoreError and CopyError."""
        if self._tokens is None:
            raise CopyError(
                "without a token (--no-auth) nothing could encrypt it; start the coordinator with "
                "a token, or remove coordinator.standby from the cluster file"
            )
        return await anyio.to_thread.run_sync(
            make_copy,
            self._store,
            self.authority,
            self._tokens.text,
            self._tokens.current,
            self.succession.record.claim,
        )

    async def _send_copy(self, machines: Sequence[str]) -> None:
        copy = await self.copy()
        text = messages.TO_DAEMON.encode(copy)
        for machine in machines:
            if (connection := self._by_daemon.get(machine)) is not None:
                self.succession.sent(machine, copy.number, anyio.current_time())
                connection.send(text)

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
        self._wake.set()

    # ------------------------------------------------------------------- commands

    async def _execute_all(self, commands: Sequence[do.Command]) -> None:
        changes = [c for c in commands if isinstance(c, do.Change)]
        if changes:
            self.succession.number = await anyio.to_thread.run_sync(self._apply, changes)
            self._copy_wanted.set()
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
                self._succession_file.write(self.succession.record)
                self._copy_wanted.set()
            case do.CarryOut(step=step):
                self._steps.append(step)
                self._step_added.set()
            case do.AppendHistory(entry=entry):
                self._append_history(entry)
            case do.SendToDaemon(daemon=daemon, message=message):
                connection = self._by_daemon.get(daemon)
                if connection is not None:
                    connection.send(messages.TO_DAEMON.encode(self._signed(message)))
            case do.RenewToken(daemon=daemon):
                self._renew_token(daemon, Renewal.NOW)
            case do.RotateToken(client=client, grace=grace, daemons=daemons):
                self._rotate_token(client, grace, daemons)
            case do.SignCertificate(daemon=daemon, request=request, digest=digest):
                self._sign(daemon, request, digest)
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
                    self._copy_wanted.set()
            case do.CloseConnection(connection=number, last=last):
                connection = self._connections.get(number)
                if connection is not None:
                    if last is not None:
                        connection.send(messages.TO_DAEMON.encode(last))
                    self._hang_up(connection)
            case do.ArmTimer(key=key, at=at):
                self._timer_count += 1
                self._armed[key] = self._timer_count
                heapq.heappush(self._timers, (at, self._timer_count, key))
            case do.CancelTimer(key=key):
                self._armed.pop(key, None)
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

    def _sign(self, daemon: str, request: str, digest: str) -> None:
        try:
            certificate = self.authority.sign(request, daemon, digest)
        except AuthorityError as error:
            logger.warning('daemon "%s": %s', daemon, clean_text(str(error)))
            return
        message = messages.Certificate(certificate=certificate, authority=self.authority.pem)
        self._execute(do.SendToDaemon(daemon, message))

    def _renew_token(self, daemon: str, *when: Renewal) -> bool:
        """Send the current token to a daemon, if its connection permits it now."""
        connection = self._by_daemon.get(daemon)
        if connection is None or self._tokens is None or connection.renewal not in when:
            return False
        current = self._tokens.current
        token = current.for_machine if connection.of_machine else current
        connection.send(messages.TO_DAEMON.encode(messages.NewToken(token=str(token))))
        return True

    def _rotate_token(self, client: int, grace: float, daemons: Sequence[str]) -> None:
        if self._tokens is None:
            reason = "the coordinator was started with --no-auth and has no token"
            self._answered(client, RequestRefused("failed", reason))
            return
        try:
            token = self._tokens.rotate(grace)
        except OSError as error:
            reason = f"{os_error_text(error)}; the token was not changed"
            self._answered(client, RequestRefused("failed", reason))
            return
        self.succession.send_again()
        self._copy_wanted.set()
        sent = [one for one in daemons if self._renew_token(one, Renewal.NOW, Renewal.LATER)]
        logger.info("replaced the token; sent it to %d daemons", len(sent))
        answer = TokenRotated(token=str(token), daemons=tuple(sent))
        self._answered(client, answer)

    def _due(self, now: float) -> list[TimerKey]:
        due = []
        while self._timers and self._timers[0][0] <= now:
            _, count, key = heapq.heappop(self._timers)
            if self._armed.get(key) == count:
                del self._armed[key]
                due.append(key)
        return due
