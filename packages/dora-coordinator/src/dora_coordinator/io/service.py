"""Service of the coordinator's state machine: clock, inbox, timers, store; executes its commands.

Events are handled in batches. Everything that a batch saves is one transaction, which is durable
before any message of the batch is sent.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

import anyio
import anyio.lowlevel
import anyio.to_thread

from dora_config.history.entries import HistoryEntry, SavedEntry
from dora_config.history.file import HistoryFile, read_history
from dora_config.protocol import daemon as messages
from dora_config.protocol.builds import BuildDataflow
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
from dora_coordinator.io.connections import Renewal
from dora_coordinator.io.credentials import MachineCredentials
from dora_coordinator.io.daemons import Daemons
from dora_coordinator.io.fleet_steps import carry_out
from dora_coordinator.io.open_requests import INTERNAL_ERROR, AnswerLost, OpenRequests
from dora_coordinator.io.standbys import Standbys
from dora_coordinator.io.store import NotWritten, Store
from dora_coordinator.io.succession import SuccessionFile
from dora_coordinator.io.timers import TimerQueue
from dora_coordinator.io.token_file import TokenFile
from dora_coordinator.queries.clients import RequestClient
from dora_coordinator.queries.cluster import QueryContext
from dora_coordinator.queries.code import find_code
from dora_coordinator.queries.queries import Queries
from dora_coordinator.settings import Settings
from dora_coordinator.state import commands as do
from dora_coordinator.state.commands import RequestRefused
from dora_coordinator.state.events import (
    ChangeRequested,
    ClientRequested,
    DaemonRegistered,
    DataflowChange,
    Event,
    FleetStep,
    TimerFired,
)
from dora_coordinator.state.succession import Succession, SuccessionRecord
from dora_coordinator.telemetry.spans import SpanReports

BATCH = 512
"""Events handled before their commands are executed."""
MAX_HISTORY_LINES = 5_000
"""Lines appended to the history file before it is replaced by the events that are kept."""
RETRY = 5.0
"""Seconds between attempts to write to a store that failed."""

_BY_DAEMONS = (
    CallRunner | CallRecorders | ChangeGraph | BuildDataflow | ReadLogs | WatchTopics | WaitForEnd
)
"""Requests that need daemons: refused while the store cannot be written, because no daemon is
connected then."""

logger = logging.getLogger("dora.coordinator")
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Service:
    """Runs on one event loop; the server passes it connections of daemons and requests."""

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
        self._store = store
        self._history = history
        self._inbox: deque[Event] = deque()
        self._wake = anyio.Event()
        self.daemons = Daemons(
            authority, lambda: self._state, self._post, lambda: self.standbys.changed()
        )
        admitted = self.daemons.admitted
        self._credentials = MachineCredentials(authority, tokens, admitted)
        self.standbys = Standbys(
            self.succession, file, store, authority, tokens, admitted, self._wake_up
        )
        self._requests = OpenRequests(self._post)
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
        self._queries = Queries(party)

    def _new_state(self) -> CoordinatorState:
        return CoordinatorState(
            self.settings,
            self.party,
            self.authority.fingerprint,
            wall_offset=time.time() - time.monotonic(),
            succession=self.succession,
        )

    async def _load(self) -> list[do.Command]:
        """Load the stored state into a new state machine."""
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
            self.daemons.calls.end_lost(self._state.membership.is_connected)
            self._requests.events_handled()

    async def _hang_up_all(self) -> None:
        """Close all connections; their requests are lost with the state."""
        await anyio.lowlevel.checkpoint()  # refusals are sent first
        self._requests.end_all()
        self.daemons.hang_up_all()

    async def _stand_aside(self, reason: str) -> None:
        """Stop changing state, because another coordinator leads."""
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
        self.spans.observe(event, commands, self.daemons.sender(event), began)
        return commands

    def _refuse(self, events: Iterable[Event], reason: str) -> None:
        """Refuse what clients and daemons requested with events whose changes were not stored."""
        for event in events:
            match event:
                case ClientRequested(request=Destroy()) if self.succession.refusal is not None:
                    self._requests.answered(event.client, Destroyed())
                    self._ending = True
                case ClientRequested() | ChangeRequested():
                    refused = RequestRefused("failed", reason)
                    self._requests.answered(event.client, refused)
                case DaemonRegistered(connection=connection):
                    refusal = messages.RegistrationRefused(message=reason)
                    self.daemons.close(connection, refusal)
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
        self._requests.close()
        self.daemons.hang_up_all()
        with anyio.move_on_after(within):
            while self.daemons.any_open:
                self._wake = anyio.Event()
                await self._wake.wait()

    # ------------------------------------------------------------ called by the server

    def code_digest(self, build: str, node_id: str) -> str:
        """Return the digest of a node's code; raises FileRefused."""
        return find_code(self._state.registry, build, node_id)

    async def request(
        self, request: ControlRequest, client: RequestClient | None = None
    ) -> Answer | Failure | None:
        """Answer one request; cancel it to drop the request.

        None: its answer was lost, because the coordinator is ending or cannot write to its store.
        """
        client = client or RequestClient()

        async def answer() -> ControlAnswer:
            if self._unwritable is not None and isinstance(request, _BY_DAEMONS):
                raise RequestRefused("failed", self._unwritable)
            return await self._queries.answer(request, self._cluster(), client)

        with client.scope:
            await self._loaded.wait()
            await self._requests.serve(request, client, answer)
        return client.frame

    def _cluster(self) -> QueryContext:
        return QueryContext(
            self._state,
            self.daemons.calls,
            self._post,
            self._store_change,
            self._decide,
            partial(self._next_change, self._state),
            self.spans.report,
        )

    async def _next_change(self, state: CoordinatorState) -> None:
        """Wait until ``state`` has handled further events; raises AnswerLost at its end."""
        await self._requests.next_change()
        if self._state is not state:
            raise AnswerLost

    async def _store_change(self, dataflow_id: str, change: DataflowChange | None) -> None:
        """Change a dataflow; return once that is stored. Raises RequestRefused."""
        try:
            await self._requests.answer_to(
                lambda number: ChangeRequested(number, dataflow_id, change)
            )
        except AnswerLost as lost:
            raise RequestRefused("failed", "the coordinator is ending") from lost

    async def _decide(self, request: Decision) -> do.Begun | ControlAnswer:
        fresh = str(uuid.uuid4())
        return await self._requests.answer_to(
            lambda number: ClientRequested(number, request, fresh)
        )

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
                self.daemons.send(daemon, message)
            case do.RenewToken(daemon=daemon):
                self._credentials.renew_token(daemon, Renewal.NOW)
            case do.RotateToken(client=client, grace=grace, daemons=daemons):
                self._rotate_token(client, grace, daemons)
            case do.SignCertificate(daemon=daemon, request=request, digest=digest):
                self._credentials.send_certificate(daemon, request, digest)
            case do.AnswerClient(client=number, answer=answer):
                self._requests.answered(number, answer)
            case do.FailClient(client=number, problem=problem):
                self._requests.answered(number, problem)
            case do.AdmitDaemon(connection=number, daemon=daemon):
                self.daemons.admit(number, daemon)
            case do.CloseConnection(connection=number, last=last):
                self.daemons.close(number, last)
            case do.ArmTimer(key=key, at=at):
                self._timers.arm(key, at)
            case do.CancelTimer(key=key):
                self._timers.cancel(key)
            case do.Log(level=level, text=text):
                logger.log(_LEVELS[level], "%s", clean_lines(text))
            case do.EndCoordinator():
                self._ending = True

    def _rotate_token(self, client: int, grace: float, daemons: Sequence[str]) -> None:
        try:
            answer = self._credentials.rotate_token(grace, daemons)
        except RequestRefused as problem:
            self._requests.answered(client, problem)
            return
        self.succession.send_again()
        self.standbys.changed()
        self._requests.answered(client, answer)
