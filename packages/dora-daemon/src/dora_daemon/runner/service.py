"""Ties a runner together: carries out what the state machine asks, tells it what happened."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import TaskGroup

from dora_config.dataflow.resolved import DEFAULT_FINISH_GRACE, ResolvedInput, ResolvedNode
from dora_config.protocol.run_plan import RunPlan
from dora_config.protocol.runner_events import DataflowResult, LogLevel, LogLine, RunnerEvent
from dora_config.yaml.quantities import parse_duration
from dora_daemon.process_tree.reaper import kill_marked
from dora_daemon.process_tree.reaper_process import ReaperProcess
from dora_daemon.process_tree.runner_index import NODE_SOCKET, IndexEntry
from dora_daemon.process_tree.runtime_dir import (
    INSPECTION_SOCKET,
    RuntimeDir,
    own_identity,
)
from dora_daemon.runner.control.replacing import Replacing
from dora_daemon.runner.control.start_up_drops import start_up_drops
from dora_daemon.runner.control.watching import Watcher
from dora_daemon.runner.link.streams import crossing_cycles
from dora_daemon.runner.logs.gate import Gate
from dora_daemon.runner.logs.life_lines import LifeLines
from dora_daemon.runner.logs.log_entries import message_text, passes
from dora_daemon.runner.logs.log_files import LogFile
from dora_daemon.runner.logs.logs import NodeLog, now_text
from dora_daemon.runner.logs.publishing import RunnerOutputs
from dora_daemon.runner.machine import events as happened
from dora_daemon.runner.machine.commands import (
    Admit,
    AdmitLink,
    AnnounceClosed,
    AnnounceClosedAgain,
    AnnounceFailed,
    AnnounceRestarted,
    ArmTimer,
    CancelTimer,
    Command,
    DropInputs,
    Finish,
    FinishLink,
    Refuse,
    Report,
    Say,
    SendGo,
    SendStop,
    SignalLink,
    SignalNode,
    SpawnLink,
    SpawnNode,
    TakeOver,
)
from dora_daemon.runner.machine.health import InputWatch
from dora_daemon.runner.machine.state import RunnerState
from dora_daemon.runner.machine.wiring import waiting_cycles
from dora_daemon.runner.nodes.desk import Desk, log_route
from dora_daemon.runner.nodes.queues import QueueBook
from dora_daemon.runner.nodes.socket import NodeServer
from dora_daemon.runner.process.injection import explain, make_package_folder
from dora_daemon.runner.process.metrics import Metrics
from dora_daemon.runner.process.prepare import PreparedNode, Preparer
from dora_daemon.runner.process.spawn import raise_open_files
from dora_daemon.runner.process.supervisor import Processes
from dora_node_api.protocol.launch_config import LaunchConfig
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.errors import TransportError

if TYPE_CHECKING:
    from dora_daemon.runner.link.supervisor import LinkKeeper
    from dora_daemon.runner.nodes.inspection import Inspection

_PARTS = ("drops", "processes", "links", "inspection", "desk", "server", "outputs", "book")
TIDY_SECONDS = 0.05
FINISH_GRACE = "DORA_FINISH_DRAIN_GRACE_SECS"


class Runner:
    """One dataflow on this machine, from its plan to its result."""

    def __init__(
        self,
        plan: RunPlan,
        directory: RuntimeDir,
        *,
        on_event: Callable[[RunnerEvent], None],
        foreground: bool,
        keep_result: Callable[[DataflowResult], None] = lambda result: None,
        environ: Mapping[str, str] = os.environ,
        gate: Gate | None = None,
    ) -> None:
        """The ``gate`` holds back the output of nodes while ``on_event`` has too much to do."""
        self.plan = plan
        self.directory = directory
        self.foreground = foreground
        self._on_event = on_event
        self._keep_result = keep_result
        self._environ = environ
        self._gate = gate
        packages = make_package_folder(directory.path / "packages")
        self.preparer = Preparer(plan, packages, environ)
        self.specs: dict[str, ResolvedNode] = {}
        self.prepared: dict[str, PreparedNode] = {}
        self.logs: dict[str, NodeLog] = {}
        self.state: RunnerState
        self.book: QueueBook
        self.desk: Desk
        self.outputs: RunnerOutputs
        self.processes: Processes
        self.inspection: Inspection
        self.metrics = Metrics()
        self._life_lines = LifeLines()
        self.inputs = InputWatch()
        self.watcher = Watcher(self)
        self.result: DataflowResult | None = None
        self.started_at: float | None = None
        self.reaper = ReaperProcess(directory.path)
        pid, started, _ = own_identity()
        self.mark = f"dora-runner-{pid}-{started}"
        """Stands in the environment of every node, and so of what a node starts."""
        self._timers: dict[tuple[str | None, str], asyncio.TimerHandle] = {}
        self._taken_when_armed: dict[str, int] = {}
        self._inbox: deque[happened.RunnerStimulus] = deque()
        self._busy = False
        self._tidying: asyncio.TimerHandle | None = None
        self._failure: BaseException | None = None
        self._change = asyncio.Event()
        self.replacing = Replacing(self)
        self.lines_shed: Callable[[], int] = lambda: 0
        self._complained_of_sending = False
        self._complained_of_noting = False

    # ------------------------------------------------------------------------ preparation

    def prepare(self) -> None:
        """Check and gather everything; raises PreparationError before anything was spawned."""
        for prepared in self.preparer.prepare_all():
            self.specs[prepared.spec.id] = prepared.spec
            self.prepared[prepared.spec.id] = prepared
        local = self.plan.local_nodes()
        self.state = RunnerState(
            local,
            dataflow_id=self.plan.dataflow_id,
            name=self.plan.name,
            stop_grace=self.plan.stop_grace,
            stop_after=self.plan.stop_after,
            exit_when_nodes_finish=self.plan.exit_when_nodes_finish,
            whole=self.plan.whole,
            hold_at_barrier=self.plan.hold_at_barrier,
            default_finish_grace=_default_finish_grace(self._environ),
            log_dir=self._log_dir(),
        )
        self.reaper.start()

    def _log_dir(self) -> str:
        """The folder of the log files: beside the dataflow file, unless all nodes run elsewhere."""
        usual = Path(self.plan.working_dir) / "out" / self.plan.dataflow_id
        used = sorted({prepared.log_file.parent for prepared in self.prepared.values()})
        return str(usual if usual in used or not used else used[0])

    # ------------------------------------------------------------------------------- life

    async def run(
        self, *, after_start: Callable[[TaskGroup], None] | None = None
    ) -> DataflowResult:
        """Run to the end. Whatever happens, no process of a node is left."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._callback_failed)
        self.finished = anyio.Event()
        try:
            self._open(loop)
            async with anyio.create_task_group() as tasks:
                if after_start is not None:
                    after_start(tasks)
                self.tell(happened.Prepared())
                await self.finished.wait()
                tasks.cancel_scope.cancel()
            if self._failure is not None:
                raise self._failure
            assert self.result is not None
            return self.result
        finally:
            loop.set_exception_handler(None)

    def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        open_files = raise_open_files()
        self._loop = loop
        self.book = QueueBook(Board.create(), self._say_short)
        self.outputs = RunnerOutputs(self.book)
        self.drops = start_up_drops(self)
        self.desk = Desk(
            self.plan,
            self.specs,
            self.book,
            self.outputs,
            tell=self.tell,
            log=self.drops.take,
            tell_staged=self._changed,
            cycles=self._waiting_cycles(),
        )
        self.processes = Processes(
            prepared=self.prepared,
            logs=self.logs,
            config_for=self._node_config,
            record=self.record,
            on_spawned=lambda node, number, pid: self.tell(happened.NodeSpawned(node, number, pid)),
            on_failed=lambda node, number, text: self.tell(
                happened.SpawnFailed(node, number, text)
            ),
            on_exited=self.exited,
            on_staged_exit=lambda node, status: self._changed(),
            open_files=open_files,
        )
        if self.plan.links is not None:
            self.links.read(self.plan.links, self.plan.credentials)
        for prepared in self.prepared.values():
            self.open_log(prepared)
        for spec in self.specs.values():
            if not spec.is_dynamic:
                self.desk.make_inputs(spec)
        self.server = NodeServer(self.node_socket, self.desk)
        if self.plan.resolved.debug_inspection:
            from dora_daemon.runner.nodes.inspection import Inspection

            path = self.directory.path / INSPECTION_SOCKET
            self.inspection = Inspection(self, path, lambda text: self.say("warn", text))
        self._record(lambda: self.directory.record_mark(self.mark))
        self.write_index()
        self.reaper.watch(loop, lambda text: self.say("warn", text))
        self.watcher.look_soon()
        if self.plan.links is not None:
            self.links.apply()

    @cached_property
    def links(self) -> LinkKeeper:
        """What there is of other machines; without them nobody asks, and it is not imported."""
        from dora_daemon.runner.link.supervisor import LinkKeeper

        return LinkKeeper(self, self._on_event)

    def _waiting_cycles(self) -> tuple[tuple[str, ...], ...]:
        """Of nodes that can wait for each other's full queues, here and across machines."""
        links = self.plan.links
        crossing = () if links is None else crossing_cycles(links)
        return (*waiting_cycles(self.specs.values()), *crossing)

    @property
    def node_socket(self) -> Path:
        """Where nodes say Hello."""
        return self.directory.path / NODE_SOCKET

    def record(self, pid: int) -> None:
        """Note a process that was started, for whoever cleans up after us."""
        self._record(lambda: self.directory.record_process(pid))

    def _record(self, note: Callable[[], object]) -> None:
        try:
            note()
        except OSError as error:
            # Nodes die with us all the same; only their children might be left, if we are killed.
            if not self._complained_of_noting:
                self._complained_of_noting = True
                self.say("warn", f"cannot note processes in {self.directory.path}: {error}")

    def open_log(self, prepared: PreparedNode) -> None:
        """Where a node's lines go."""
        self.logs[prepared.spec.id] = log = self.new_log(prepared)
        log.create_file()
        if self.plan.recovered is not None:
            log.note("warn", f"started again (recovery): {self.plan.recovered}")
        for text in prepared.warnings:
            self.say("warn", f'node "{prepared.spec.id}": {text}')

    def new_log(self, prepared: PreparedNode) -> NodeLog:
        """A log that is not the node's yet."""
        spec = prepared.spec
        file = LogFile(
            prepared.log_file, max_size=spec.max_log_size, rotated=spec.max_rotated_files
        )
        return NodeLog(
            spec,
            file,
            settings=self.plan.logs,
            upward=self._on_event,
            as_message=lambda output, text: self._send(f"{spec.id}/{output}", text),
            to_subscribers=self._to_subscribers,
            to_message=self._message_text,
            complain=lambda text: self.say("warn", text),
            gate=self._gate,
        )

    def take_in(self, prepared: PreparedNode) -> None:
        """A node that joins the running dataflow."""
        spec = prepared.spec
        self.specs[spec.id] = spec
        self.prepared[spec.id] = prepared
        self.open_log(prepared)
        if not spec.is_dynamic:
            self.desk.make_inputs(spec)
        self.write_index()
        self.watcher.look_soon()

    def forget(self, node: str) -> None:
        """A node that has ended leaves the dataflow, and its edges with it."""
        for kept in [*self.book.into(node), *self.book.out_of(node)]:
            self.desk.drop_queue(kept)
        self.desk.forget(node)
        self.tell(happened.NodeRemoved(node))
        self.logs.pop(node).close()
        del self.specs[node], self.prepared[node]
        self.write_index()

    def set_inputs(self, node: str, inputs: dict[str, ResolvedInput]) -> None:
        """The inputs of a node have changed."""
        self.specs[node] = self.specs[node].model_copy(update={"inputs": inputs})
        self.watcher.look_soon()

    def write_index(self) -> None:
        """Tell dynamic nodes and later daemons who is here."""
        from dora_daemon import __version__

        pid, started, boot = own_identity()
        entry = IndexEntry(
            dataflow_id=self.plan.dataflow_id,
            name=self.plan.name,
            nodes=tuple(self.specs),
            dynamic_nodes=tuple(s.id for s in self.specs.values() if s.is_dynamic),
            pid=pid,
            start_time=started,
            boot_id=boot,
            foreground=self.foreground,
            machine_id=self.plan.machine_id,
            version=__version__,
        )
        try:
            self.directory.write_index(entry)
        except OSError as error:
            self.say("warn", f"cannot write the index in {self.directory.path}: {error}")

    def _node_config(self, node: str, incarnation: int) -> str:
        return LaunchConfig(
            socket=str(self.node_socket),
            node_id=node,
            incarnation=incarnation,
            dataflow_id=self.plan.dataflow_id,
            runner=self.mark,
            machine_id=self.plan.machine_id,
        ).to_text()

    def close(self) -> None:
        """Kill what runs, close what is open; the directory is released by the caller."""
        for handle in self._timers.values():
            handle.cancel()
        self._timers.clear()
        if self._tidying is not None:
            self._tidying.cancel()
        self.watcher.close()
        self.reaper.unwatch()
        for name in _PARTS:
            part = vars(self).get(name)
            if part is not None:
                part.close()
        # Now there are descriptors to spare for the look around.
        kill_marked(self.mark)
        for log in self.logs.values():
            log.close()

    def _callback_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A bug in a callback of the loop ends the runner: exceptions must propagate."""
        error = context.get("exception") or RuntimeError(context["message"])
        if self._failure is None:
            self._failure = error
        self.finished.set()

    # ----------------------------------------------------------------------- state machine

    def tell(self, event: happened.RunnerStimulus) -> None:
        """Pass an event to the state machine and do what it asks, in order."""
        self._inbox.append(event)
        if self._busy:
            return
        self._busy = True
        try:
            while self._inbox:
                now = self._loop.time()
                for command in self.state.handle(self._inbox.popleft(), now):
                    self._do(command)
        finally:
            self._busy = False
        self._changed()

    def _changed(self) -> None:
        self._change.set()
        self._change = asyncio.Event()

    async def changed(self) -> None:
        """Wait until something has happened."""
        await self._change.wait()

    def now(self) -> float:
        """The clock of the state machine, in seconds."""
        return self._loop.time()

    def _do(self, command: Command) -> None:
        match command:
            case SpawnNode():
                self.processes.spawn(command)
            case SignalNode(node=node, signal=name):
                self.processes.signal(node, name)
            case TakeOver(node=node, incarnation=number):
                self.replacing.take_over(node, number)
            case Admit(node=node, incarnation=number):
                self.desk.restarts[node] = self.state.nodes[node].restarts
                self.desk.admit(node, number)
            case Refuse(node=node, message=message):
                self.desk.refuse(node, message)
            case SendGo(nodes=nodes):
                self.started_at = self.started_at or time.time()
                self.drops.started()
                self.desk.go(nodes)
            case SendStop(node=node, reason=reason):
                self.desk.stop(node, reason)
            case ArmTimer():
                self._arm(command)
            case CancelTimer(node=node, timer=timer):
                if (handle := self._timers.pop((node, timer), None)) is not None:
                    handle.cancel()
            case Report(event=event):
                self._note(event)
                self._on_event(event)
            case Say(level=level, message=message, node=about):
                self.say(level, message if about is None else f'node "{about}": {message}')
            case DropInputs(node=node):
                self.desk.drop_inputs(node)
            case SpawnLink() | AdmitLink() | FinishLink() | SignalLink():
                self._about_link(command)
            case Finish(result=result):
                self.result = result
                self._keep_result(result)
                self.finished.set()
            case _:
                self._announce(command)

    def _about_link(self, command: SpawnLink | AdmitLink | FinishLink | SignalLink) -> None:
        match command:
            case SpawnLink(incarnation=number):
                self.links.spawn(number)
            case AdmitLink(incarnation=number):
                self.links.close_ended()
                self.desk.admit_link(number)
            case FinishLink(seconds=seconds):
                self.links.finish(seconds)
            case SignalLink(signal=name):
                self.links.signal(name)

    def _announce(
        self,
        command: AnnounceClosed | AnnounceRestarted | AnnounceFailed | AnnounceClosedAgain,
    ) -> None:
        match command:
            case AnnounceClosed(node=node, outputs=outputs):
                self.book.announce_closed(node, outputs)
            case AnnounceRestarted(node=node):
                self.book.announce_restarted(node)
            case AnnounceFailed(node=node, error=error):
                self.book.announce_failed(node, error)
            case AnnounceClosedAgain(node=node, inputs=inputs):
                self.book.announce_closed_again(node, inputs)
        self.tidy_soon()

    def _arm(self, command: ArmTimer) -> None:
        key = (command.node, command.timer)
        if command.node is not None and command.timer == "finish":
            self._taken_when_armed[command.node] = self._taken(command.node)
        if (old := self._timers.pop(key, None)) is not None:
            old.cancel()
        self._timers[key] = self._loop.call_at(command.at, self._fire, *key)

    def _fire(self, node: str | None, timer: str) -> None:
        del self._timers[node, timer]
        busy = False
        if node is not None and timer == "finish":
            taken = self._taken(node)
            busy = self.book.queued(node) > 0 and taken != self._taken_when_armed.get(node)
        self.tell(happened.TimerFired(node, timer, busy))

    def _taken(self, node: str) -> int:
        """Messages that a node has taken from its inputs so far."""
        return sum(kept.keeper.statistics().received for kept in self.book.into(node))

    def _note(self, event: RunnerEvent) -> None:
        """A line in the log file of a node about what happens to its process."""
        line = self._life_lines.line(event)
        if line is not None and line.node in self.logs:
            self.logs[line.node].note(line.level, line.message)

    def exited(self, node: str, incarnation: int, status: happened.Exit) -> None:
        life = self.state.nodes.get(node)
        drained = self.book.queued(node) == 0
        never_connected = life is not None and not life.connected
        self.desk.process_ended(node, incarnation)
        self.tidy_soon()
        self.tell(
            happened.NodeExited(
                node,
                incarnation,
                status,
                drained=drained,
                stderr_tail=tuple(self.logs[node].tail),
                explanation=explain(self.prepared[node].facts) if never_connected else None,
            )
        )

    def tidy_soon(self) -> None:
        """Look in a moment at what waits to be written or freed, if there is something."""
        if self._tidying is None and self.book.untidy:
            self._tidying = self._loop.call_later(TIDY_SECONDS, self._tidy)

    def _tidy(self) -> None:
        self._tidying = None
        self.book.tidy()
        self.tidy_soon()

    # --------------------------------------------------------------------------------- logs

    def _say_short(self, node: str, message: str) -> None:
        # Into the node's own log, which outlives a runner that a daemon has started.
        known = node if node in self.logs else None
        self.log(LogLine(ts=now_text(), level="warn", node=known, message=message))

    def say(self, level: LogLevel, message: str) -> None:
        """A line of the runner itself."""
        self.log(LogLine(ts=now_text(), level=level, message=message, target="dora.runner"))

    def log(self, entry: LogLine) -> None:
        """An entry that no node printed: the runner's own, or of a node's library."""
        if entry.node is not None and entry.node in self.logs:
            self.logs[entry.node].say(entry)
            return
        if passes(entry.level, self.plan.logs.level):
            self._on_event(entry)
        self._to_subscribers(entry)

    def _to_subscribers(self, entry: LogLine) -> None:
        desk = getattr(self, "desk", None)
        if desk is None:
            return
        for (node, name), source in desk.log_inputs.items():
            about = source.node
            wanted = node != entry.node and (about is None or about == entry.node)
            if wanted and passes(entry.level, source.level):
                self._send(log_route(node, name), self._message_text(entry))

    def hand_on_line(self, readers: tuple[tuple[str, str], ...], text: str) -> None:
        """A log line of another machine, for these inputs."""
        for node, name in readers:
            self._send(log_route(node, name), text)

    def _message_text(self, entry: LogLine) -> str:
        return message_text(
            entry,
            dataflow_id=self.plan.dataflow_id,
            daemon_id=self.plan.daemon_id,
            build_id=self.plan.build_id,
        )

    def _send(self, route: str, text: str) -> None:
        try:
            self.outputs.send_text(route, text)
        except TransportError as error:
            if not self._complained_of_sending:
                self._complained_of_sending = True
                self.say("warn", f"log lines cannot be sent as messages: {error}")


def _default_finish_grace(environ: Mapping[str, str]) -> float | None:
    text = environ.get(FINISH_GRACE, "").strip().lower()
    if text == "off":
        return None
    try:
        return parse_duration(text)
    except ValueError:
        return DEFAULT_FINISH_GRACE
