"""Service of the agent: executes the commands of its state machine."""

from __future__ import annotations

import logging
import signal
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread

from dora_config.access import Endpoint, write_private
from dora_config.errors import DoraError
from dora_config.file_store import FileStore
from dora_config.process_identity import boot_id
from dora_config.protocol import daemon as messages
from dora_config.protocol.builds import BuildEventsAck, BuildPart, CancelBuild
from dora_config.protocol.calls import ChangePart, RunnerCall
from dora_config.protocol.envelope import ProgramVersion
from dora_config.protocol.runner import Done
from dora_config.protocol.snapshot import SampleMachine
from dora_config.protocol.topics import StreamTopics
from dora_daemon._version import __version__
from dora_daemon.agent import commands as do, events
from dora_daemon.agent.builds.files import BuildFiles
from dora_daemon.agent.builds.processes import BuildProcesses
from dora_daemon.agent.coordinator_access import CoordinatorAccess
from dora_daemon.agent.coordinator_link import CoordinatorLink
from dora_daemon.agent.credentials import Credentials
from dora_daemon.agent.linking import LinkSetup, Listen
from dora_daemon.agent.local_entry import LocalEntry
from dora_daemon.agent.logs.history import read_part_history
from dora_daemon.agent.node_paths import LocalMachine
from dora_daemon.agent.part_files import DaemonFiles, DaemonStateError
from dora_daemon.agent.parts.changes import PartChanges
from dora_daemon.agent.records import PartRecord
from dora_daemon.agent.runners.registry import RunnerRegistry
from dora_daemon.agent.sampler import Sampler
from dora_daemon.agent.side_programs import start_recorders
from dora_daemon.agent.state import AgentState
from dora_daemon.agent.streams import Streams
from dora_daemon.code.delivery import CodeDelivery
from dora_daemon.process_tree import daemon_entry

ADOPTION_TIMEOUT = 10.0
"""Seconds for runners of an earlier daemon process to answer before the daemon registers."""
OFFLINE_AFTER = 20.0
"""Default of `AgentOptions.offline_after`."""
COPY_FILE = "coordinator-copy.json"
"""Encrypted state of the coordinator, which `dora cluster promote` reads."""
LOCAL_POLL = 0.25
"""Seconds between two checks for requests of commands on this machine."""
FLUSH_TIMEOUT = 2.0
"""Seconds to send the last messages to the coordinator."""

logger = logging.getLogger("dora.daemon")
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING}


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """Options of the command line."""

    machine_id: str | None
    labels: dict[str, str]
    base_dir: Path
    allow_shell: bool = False
    listen: Listen = field(default_factory=Listen)
    """Addresses and ports at which links to other machines listen."""
    offline_after: float = OFFLINE_AFTER
    """Seconds without the coordinator after which the machine starts its nodes alone."""
    spare_runner: bool = False


class Agent:
    """Agent of a machine, on one event loop; :meth:`post` may be called there at any time."""

    def __init__(
        self,
        options: AgentOptions,
        files: DaemonFiles,
        runtime_root: Path,
        endpoint: Callable[[], Endpoint],
    ) -> None:
        """``endpoint`` reads the token file. Raises AccessError."""
        self._options = options
        self._files = files
        self._build_files = BuildFiles(files.directory / "builds")
        self._access = CoordinatorAccess(files.directory, endpoint)
        store = FileStore(files.directory.parent.parent / "code")
        self._code = CodeDelivery(store, self._access.endpoint)
        self._credentials = Credentials(files.directory / "credentials")
        self._authority = ""
        self._certificate_name = ""
        self._connections = 0
        """Registrations with the coordinator so far."""
        self._incarnation = str(uuid.uuid4())
        records, problems = files.load()
        for problem in problems:
            logger.warning("%s", problem)
        tasks = self._tasks = anyio.create_task_group()
        self._recorders = start_recorders(
            tasks,
            files.directory / "recordings",
            options.machine_id or socket.gethostname(),
            self._access.endpoint,
            lambda dataflow_id: self._state.parts.is_live(dataflow_id),
            self.post,
        )
        self._state = AgentState(records, self._recorders.dataflows())
        self._adopted, self._ended = anyio.Event(), anyio.Event()
        self._link = CoordinatorLink(
            access=self._access,
            register=self._register,
            sign=self._credentials.sign,
            heartbeat=self._heartbeat,
            received=self._receive,
            lost=self._disconnected,
        )
        where, parts = self._link.endpoint, self._state.parts
        self._entry = LocalEntry(
            runtime_root, files.instance, options.machine_id, options.offline_after, where, parts
        )
        links = LinkSetup(options.listen, endpoint().host, self._credentials)
        self._runners = RunnerRegistry(
            tasks, runtime_root, self._machine, self.post, self._link.send_heartbeat_soon, links
        )
        send = self._link.send
        self._changes = PartChanges(self._machine, self._runners, links, parts.record, self.post)
        self._streams = Streams(tasks, send, parts.is_live)
        self._sampler = Sampler(self._runners)
        self._builds = BuildProcesses(
            tasks, runtime_root, self._machine, self._build_files, send, self._builds_in_use
        )

    async def run(self) -> None:
        """Adopt runners, then serve the coordinator until the state machine ends the daemon."""
        async with self._tasks:
            self._tasks.start_soon(self._be_away, daemon_entry.process_age())
            self._entry.note_connection(connected=False)
            self.post(events.DaemonStarted())
            with anyio.move_on_after(ADOPTION_TIMEOUT):
                await self._adopted.wait()
            if self._options.spare_runner:
                self._runners.spare.prepare(idle=not self._runners.connected())
            async with anyio.create_task_group() as connection:
                connection.start_soon(self._link.run)
                await self._ended.wait()
                self._link.finish()
                connection.cancel_scope.deadline = anyio.current_time() + FLUSH_TIMEOUT
            self._runners.spare.close()
            self._tasks.cancel_scope.cancel()
        self._entry.remove()

    async def _be_away(self, waited: float = 0.0) -> None:
        """Take requests of commands on this machine until the next registration.

        Post ``CoordinatorAway`` after ``offline_after`` seconds without a connection, of which
        ``waited`` have passed.
        """
        seconds, connections = self._options.offline_after, self._connections
        left: float | None = max(0.0, seconds - waited)
        while self._connections == connections:
            self._entry.take_stops(self.post)
            if left == 0.0:
                left = None
                self.post(events.CoordinatorAway(seconds))
            pause = LOCAL_POLL if left is None else min(LOCAL_POLL, left)
            left = None if left is None else left - pause
            await anyio.sleep(pause)

    async def _post_later(self, seconds: float, event: events.Event) -> None:
        await anyio.sleep(seconds)
        self.post(event)

    def post(self, event: events.Event) -> None:
        """Handle an event and execute its commands at once."""
        for command in self._state.handle(event, time.time()):
            self._execute(command)
        self._entry.update()

    def _execute(self, command: do.Command) -> None:
        match command:
            case do.SavePart(record=record):
                try:
                    self._files.save(record)
                except OSError as error:  # full disk: running nodes matter more than the record
                    logger.error("%s: cannot be written: %s", error.filename, error.strerror)
            case do.DropPart(dataflow_id=dataflow_id):
                self._files.drop(dataflow_id)
            case do.SendToCoordinator(message=message):
                self._link.send(message)
            case do.Connect():
                self._adopted.set()
            case do.StartLater(dataflow_id=dataflow_id, starts=starts, seconds=seconds):
                due = events.PartDue(dataflow_id, starts)
                self._tasks.start_soon(self._post_later, seconds, due)
            case do.StartRunner(record=record):
                self._runners.start(record)
            case do.AdoptRunner(record=record):
                self._runners.adopt(record)
            case do.SendToRunner(dataflow_id=dataflow_id, request=request):
                self._runners.send(dataflow_id, request)
            case do.SetRunnerLinks(record=record):
                self._tasks.start_soon(self._changes.set_links, record.dataflow_id)
            case do.ReadNodes(dataflow_id=dataflow_id, attempt=attempt):
                self._tasks.start_soon(self._changes.read_nodes, dataflow_id, attempt)
            case do.SignalRunner(dataflow_id=dataflow_id, signal=name):
                self._runners.signal(dataflow_id, signal.Signals[name])
            case do.StartRecorders(record=record, new_attempt=new_attempt):
                self._recorders.start(record, new_attempt=new_attempt)
            case do.WriteLog(level=level, text=text):
                logger.log(_LEVELS[level], "%s", text)
            case do.ExitDaemon():
                self._ended.set()

    # -------------------------------------------------------------------- coordinator

    def _receive(self, message: messages.CoordinatorMessage) -> None:
        """Pass a message to the state machine, or to the service of an open stream or build."""
        match message:
            case messages.Registered(authority=authority, certificate_name=name):
                self._authority, self._certificate_name = authority, name
                self._connections += 1
                self._entry.note_connection(connected=True)
                self.post(events.CoordinatorConnected())
                self._request_certificate()
            case messages.Certificate():
                self._store(message)
            case messages.NewToken(token=token):
                self._store_token(token)
            case messages.StreamLogs() | StreamTopics():
                self._read(message)
            case messages.ReadOn(stream=stream):
                self._streams.read_on(stream)
            case messages.EndStream(stream=stream):
                self._streams.close(stream)
            case BuildPart() | CancelBuild() | BuildEventsAck():
                self._builds.handle(message)
            case messages.DaemonCall():
                self._tasks.start_soon(self._answer, message)
            case messages.HeartbeatAck():
                self._recorders.acknowledged(message)
            case messages.CoordinatorCopy():
                self._tasks.start_soon(self._keep_copy, message)
            case messages.RegistrationRefused() | messages.Challenge() | messages.Coordinators():
                pass  # handled by the link
            case _:
                self.post(message)

    def _read(self, request: messages.StreamLogs | StreamTopics) -> None:
        found = self._state.parts.read(request)
        if isinstance(found, PartRecord):
            self._streams.open(found, request)
        else:
            self._link.send(found)

    async def _answer(self, call: messages.DaemonCall) -> None:
        try:
            reply = await self._reply(call.request)
            self._link.send(messages.DaemonAnswered(call=call.call, reply=reply))
        except DoraError as error:
            self._link.send(messages.DaemonAnswered(call=call.call, problem=str(error)))

    async def _reply(self, request: messages.DaemonRequest) -> messages.DaemonReply:
        """Return the reply to a request. Raises DoraError."""
        match request:
            case RunnerCall(dataflow_id=dataflow_id, request=forwarded):
                return await self._runners.call(dataflow_id, forwarded)
            case ChangePart():
                await self._changes.change(request)
                return Done()
            case messages.ReadHistory(dataflow_id=dataflow_id):
                part = self._state.parts.get(dataflow_id)
                if part is None:
                    raise DoraError("this machine no longer has a history of that dataflow")
                return await read_part_history(self._runners, part.record, live=part.answers)
            case SampleMachine():
                return await self._sampler.answer(request)
            case messages.SendCode():
                return await self._send_code(request)
            case _:
                return await self._recorders.call(request)

    def _store_token(self, token: str) -> None:
        try:
            self._access.keep_token(token)
            logger.info("received the new token of the cluster")
        except (OSError, DoraError) as error:
            logger.error("the new token cannot be stored, and is lost at a restart: %s", error)

    async def _keep_copy(self, copy: messages.CoordinatorCopy) -> None:
        """Write a copy of the coordinator's state, and confirm it."""
        path = self._files.directory / COPY_FILE
        problem = None
        try:
            await anyio.to_thread.run_sync(write_private, path, copy.model_dump_json().encode())
        except OSError as error:  # full disk
            problem = f"{path}: cannot be written: {error.strerror}"
            logger.error("%s", problem)
        self._link.send(messages.CopyKept(epoch=copy.epoch, number=copy.number, problem=problem))

    async def _send_code(self, request: messages.SendCode) -> messages.CodeFound:
        found = await anyio.to_thread.run_sync(self._code.find, request.digests)
        problem = None
        if request.upload:
            found, problem = await self._code.upload(found)
        if problem is not None:
            logger.error("code was not sent to the coordinator: %s", problem)
        return messages.CodeFound(digests=tuple(found), problem=problem)

    def _store(self, message: messages.Certificate) -> None:
        try:
            self._credentials.store(message.certificate, message.authority)
        except OSError as error:  # full disk: requested again after the next registration
            logger.error("%s: cannot be written: %s", error.filename, error.strerror)

    def _request_certificate(self) -> None:
        """Request one if needed; without a connection this happens after the registration."""
        if self._authority and self._credentials.wanted(self._authority, self._certificate_name):
            self._link.send(messages.SignRequest(request=self._credentials.request()))

    def _disconnected(self) -> None:
        """Close the streams and builds of clients, which were connected to the coordinator."""
        self._streams.close_all()
        self._builds.cancel_all()
        self._entry.note_connection(connected=False)
        self.post(events.CoordinatorLost())
        self._tasks.start_soon(self._be_away)

    def _register(self) -> messages.Register:
        return messages.Register(
            party=ProgramVersion(program="daemon", release=__version__),
            instance=self._files.instance,
            incarnation=self._incarnation,
            machine_id=self._options.machine_id,
            labels=self._options.labels,
            host=socket.gethostname(),
            boot_id=boot_id(),
            plain_links=self._options.listen.plain,
            parts=self._state.parts.reports(),
            stored_ends=self._state.parts.stored_ends(),
            public_key=self._credentials.public_key,
        )

    def _restore_files(self) -> None:
        """Write removed files again, for the next daemon process and for links."""
        logger.warning("restoring %s, which was removed", self._files.directory)
        try:
            self._files.restore(self._state.parts.records())
            self._credentials.make_again()
        except (OSError, DaemonStateError) as error:
            logger.error("cannot restore %s: %s", self._files.directory, error)
            return
        self._request_certificate()

    def _heartbeat(self) -> messages.Heartbeat:
        if self._files.were_removed():
            self._restore_files()
        metrics = tuple(
            messages.Metrics(
                dataflow_id=status.dataflow_id,
                nodes=status.nodes,
                link=status.state.link,
                version=status.version,
            )
            for status in self._runners.statuses()
            if status.nodes or status.state.link is not None
        )
        self._runners.refresh()
        return messages.Heartbeat(
            metrics=metrics,
            parts=self._state.parts.reports(),
            time=time.time(),
            monotonic_ns=time.monotonic_ns(),
        )

    def _machine(self) -> LocalMachine:
        return LocalMachine(
            base_dir=self._options.base_dir,
            boot_id=boot_id(),
            machine_id=self._options.machine_id,
            daemon_id=self._files.instance,
            allow_shell=self._options.allow_shell,
            builds=self._build_files,
            code=self._code,
            parts=tuple(
                part for part in self._state.parts.records() if part.is_live and not part.stopping
            ),
        )

    def _builds_in_use(self) -> set[str]:
        build_ids = (record.spec.build_id for record in self._state.parts.records())
        return {build_id for build_id in build_ids if build_id is not None}
