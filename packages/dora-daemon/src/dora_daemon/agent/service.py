"""Runs the agent: carries out what its state commands, joins link, runners and logs."""

from __future__ import annotations

import logging
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from dora_config.access import Endpoint
from dora_config.file_store import FileStore
from dora_config.process_identity import boot_id
from dora_config.protocol.calls import RunnerAnswered, RunnerCall
from dora_config.protocol.daemon import (
    Certificate,
    CoordinatorMessage,
    Heartbeat,
    Metrics,
    Register,
    Registered,
    SignRequest,
)
from dora_config.protocol.envelope import ProgramVersion
from dora_config.protocol.runner import RunnerReply
from dora_config.protocol.topics import EndTopics, MoreTopics
from dora_daemon._version import __version__
from dora_daemon.agent.builds.files import BuildFiles
from dora_daemon.agent.builds.service import Builds
from dora_daemon.agent.commands import (
    AskRunner,
    CallRunner,
    CloseLogs,
    Command,
    DropPart,
    EndDaemon,
    KillRunner,
    Log,
    MindBuild,
    MindWatch,
    OpenLogs,
    OpenWatch,
    ReadOn,
    SavePart,
    StartRunner,
    TellCoordinator,
)
from dora_daemon.agent.coordinator_link import CoordinatorLink
from dora_daemon.agent.credentials import Credentials
from dora_daemon.agent.events import CoordinatorSpoke, Event, RunnerGone
from dora_daemon.agent.inspectors import Watches
from dora_daemon.agent.linking import LinkSetup, Listen
from dora_daemon.agent.logs.streams import LogStreams
from dora_daemon.agent.node_paths import Machine
from dora_daemon.agent.part_files import DaemonFiles, DaemonStateError
from dora_daemon.agent.runners import Runners
from dora_daemon.agent.state import AgentState
from dora_daemon.code.delivery import Delivery

ADOPTION_TIMEOUT = 10.0
"""Seconds for runners of an earlier daemon to answer before the coordinator is told of them."""
FLUSH_TIMEOUT = 2.0
"""Seconds for the last words to the coordinator."""

logger = logging.getLogger("dora.daemon")
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """What the command line says."""

    machine_id: str | None
    labels: dict[str, str]
    base_dir: Path
    allow_shell: bool = False
    listen: Listen = field(default_factory=Listen)
    """Where links to other machines listen."""


class Agent:
    """Everything runs on one event loop; :meth:`post` may be called from it at any time."""

    def __init__(
        self,
        options: AgentOptions,
        files: DaemonFiles,
        runtime_root: Path,
        endpoint: Callable[[], Endpoint],
    ) -> None:
        self._options = options
        self._files = files
        self._build_files = BuildFiles(files.directory / "builds")
        self._root = runtime_root
        self._endpoint = endpoint
        self._code = Delivery(FileStore(files.directory.parent.parent / "code"), endpoint)
        self._credentials = Credentials(files.directory / "credentials")
        self._authority = ""
        self._incarnation = str(uuid.uuid4())
        records, problems = files.load()
        for problem in problems:
            logger.warning("%s", problem)
        self.state = AgentState(records)
        self._unsettled = {record.dataflow_id for record in records if record.is_live}
        self._settled = anyio.Event()
        self._ended = anyio.Event()

    async def run(self) -> None:
        """Adopt what is there, then serve the coordinator until told to end."""
        async with anyio.create_task_group() as tasks:
            self._link = CoordinatorLink(
                endpoint=self._endpoint,
                register=self._register,
                heartbeat=self._heartbeat,
                received=self._received,
                lost=self._lost,
            )
            links = LinkSetup(
                self._options.listen, lambda: self._endpoint().host, self._credentials
            )
            self._runners = Runners(
                tasks, self._root, self._machine, self.post, self._link.hurry, links
            )
            self._streams = LogStreams(tasks, self._link.send, self._is_live)
            self._watches = Watches(tasks, self._link.send)
            self._builds = Builds(
                tasks,
                self._root,
                self._machine,
                self._build_files,
                self._link.send,
                self._builds_in_use,
            )
            await self._adopt()
            async with anyio.create_task_group() as talking:
                talking.start_soon(self._link.run)
                await self._ended.wait()
                self._link.finish()
                talking.cancel_scope.deadline = anyio.current_time() + FLUSH_TIMEOUT
            tasks.cancel_scope.cancel()

    async def _adopt(self) -> None:
        for dataflow_id in list(self._unsettled):
            record = self.state.parts[dataflow_id].record
            if record.runtime_dir:
                logger.info("adopting the runner of dataflow %s", dataflow_id)
                self._runners.adopt(record)
            else:
                self.post(RunnerGone(dataflow_id, "the daemon ended before its runner started"))
        if self._unsettled:
            with anyio.move_on_after(ADOPTION_TIMEOUT):
                await self._settled.wait()

    def post(self, event: Event) -> None:
        """Handle an event and carry out what follows, at once."""
        for command in self.state.handle(event, time.time()):
            self._do(command)
        dataflow_id = getattr(event, "dataflow_id", None)
        if dataflow_id in self._unsettled:
            self._unsettled.discard(dataflow_id)
            if not self._unsettled:
                self._settled.set()

    def _received(self, message: CoordinatorMessage) -> None:
        match message:
            case Registered(authority=authority):
                self._authority = authority
                self._ask_for_certificate()
            case Certificate():
                self._keep(message)
            case _:
                self.post(CoordinatorSpoke(message))

    def _keep(self, message: Certificate) -> None:
        try:
            self._credentials.store(message.certificate, message.authority)
        except OSError as error:  # a full disk; the next connection asks again
            logger.error("%s: cannot be written: %s", error.filename, error.strerror)

    def _ask_for_certificate(self) -> None:
        """If one is needed; without a connection the next registration will see to it."""
        if self._authority and self._credentials.wanted(self._authority):
            self._link.send(SignRequest(request=self._credentials.request()))

    def _do(self, command: Command) -> None:
        match command:
            case SavePart(record=record):
                try:
                    self._files.save(record)
                except OSError as error:  # a full disk: nodes that run matter more than the record
                    logger.error("%s: cannot be written: %s", error.filename, error.strerror)
            case DropPart(dataflow_id=dataflow_id):
                self._files.drop(dataflow_id)
            case TellCoordinator(message=message):
                self._link.send(message)
            case StartRunner(record=record):
                self._runners.start(record)
            case AskRunner(dataflow_id=dataflow_id, request=request):
                self._runners.ask(dataflow_id, request)
            case KillRunner(dataflow_id=dataflow_id):
                self._runners.kill(dataflow_id)
            case OpenLogs(record=record, request=request):
                self._streams.open(record, request)
            case ReadOn(stream=stream):
                self._streams.read_on(stream)
            case CloseLogs(stream=stream):
                self._streams.close(stream)
            case OpenWatch(record=record, request=watch):
                self._watches.open(record, watch)
            case MindWatch(message=MoreTopics(stream=stream)):
                self._watches.read_on(stream)
            case MindWatch(message=EndTopics(stream=stream)):
                self._watches.close(stream)
            case MindBuild(message=build):
                self._builds.handle(build)
            case CallRunner(message=call):
                self._call_runner(call)
            case Log(level=level, text=text):
                logger.log(_LEVELS[level], "%s", text)
            case EndDaemon():
                self._ended.set()

    def _call_runner(self, call: RunnerCall) -> None:
        def answered(reply: RunnerReply | None, problem: str | None) -> None:
            self._link.send(RunnerAnswered(call=call.call, reply=reply, problem=problem))

        self._runners.call(call.dataflow_id, call.request, answered)

    def _lost(self) -> None:
        """The coordinator is gone, and with it whoever reads logs, watches, waits for builds."""
        self._streams.close_all()
        self._watches.close_all()
        self._builds.cancel_all()

    # ------------------------------------------------------------------ what others ask

    def _register(self) -> Register:
        return Register(
            party=ProgramVersion(program="daemon", release=__version__),
            instance=self._files.instance,
            incarnation=self._incarnation,
            machine_id=self._options.machine_id,
            labels=self._options.labels,
            host=socket.gethostname(),
            boot_id=boot_id(),
            plain_links=self._options.listen.plain,
            parts=self.state.reports(),
        )

    def _make_files_again(self) -> None:
        """Somebody removed them: the next daemon shall know of what runs, and links listen."""
        logger.warning("%s was removed: it is made again", self._files.directory)
        try:
            self._files.make_again(part.record for part in self.state.parts.values())
            self._credentials.make_again()
        except (OSError, DaemonStateError) as error:
            logger.error("it cannot be made again: %s", error)
            return
        self._ask_for_certificate()

    def _heartbeat(self) -> Heartbeat:
        if self._files.were_removed():
            self._make_files_again()
        metrics = tuple(
            Metrics(
                dataflow_id=status.dataflow_id,
                nodes=status.nodes,
                link=status.link,
                version=status.version,
            )
            for status in self._runners.statuses()
            if status.nodes or status.link is not None
        )
        self._runners.ask_for_status()
        return Heartbeat(metrics=metrics, time=time.time())

    def _machine(self) -> Machine:
        return Machine(
            base_dir=self._options.base_dir,
            boot_id=boot_id(),
            machine_id=self._options.machine_id,
            daemon_id=self._files.instance,
            allow_shell=self._options.allow_shell,
            builds=self._build_files,
            code=self._code,
        )

    def _is_live(self, dataflow_id: str) -> bool:
        part = self.state.parts.get(dataflow_id)
        return part is not None and part.live

    def _builds_in_use(self) -> set[str]:
        specs = (part.record.spec for part in self.state.parts.values())
        return {spec.build_id for spec in specs if spec.build_id is not None}
