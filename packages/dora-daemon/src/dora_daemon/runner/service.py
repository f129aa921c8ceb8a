"""Runs one dataflow on this machine: executes the commands of the state machine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio

from dora_config.protocol.links import LinkPlan
from dora_config.protocol.run_plan import RunPlan
from dora_config.protocol.runner_events import (
    DataflowResult,
    DataflowStopping,
    RunnerState,
    RunOutput,
)
from dora_daemon.process_tree.reaper import kill_marked
from dora_daemon.process_tree.reaper_process import ReaperProcess
from dora_daemon.process_tree.runtime_dir import RuntimeDir, own_identity
from dora_daemon.runner.dispatcher import Dispatcher
from dora_daemon.runner.logs.logs import OutputGate
from dora_daemon.runner.machine import commands, state as machine
from dora_daemon.runner.machine.commands import ArmTimer
from dora_daemon.runner.machine.events import Prepared, StateEvent, TimerFired, TimerName
from dora_daemon.runner.nodes.local_nodes import LocalNode, LocalNodes
from dora_daemon.runner.nodes.monitor import HealthMonitor
from dora_daemon.runner.nodes.processes import Processes
from dora_daemon.runner.nodes.queues import QueueRegistry
from dora_daemon.runner.nodes.services import NodeServices
from dora_daemon.runner.process.prepare import PreparedNode, Preparer
from dora_node_api.protocol.messages import StopNode
from dora_node_api.protocol.runner_index import NODE_SOCKET, PORT_VARIABLE, IndexEntry

if TYPE_CHECKING:
    from dora_daemon.runner.link.supervisor import LinkSupervisor


@dataclass(eq=False)
class RunnerFiles:
    """The index, by which nodes and daemons find this runner, and the record of processes."""

    _directory: RuntimeDir
    _plan: RunPlan
    _nodes: LocalNodes
    _foreground: bool
    _warn: Callable[[str], None]
    _warned: bool = False

    def write_index(self) -> None:
        """Write the index; call this when nodes have been added or removed."""
        pid, started, boot = own_identity()
        port = os.environ.get(PORT_VARIABLE, "")
        specs = self._nodes.specs()
        entry = IndexEntry(
            dataflow_id=self._plan.dataflow_id,
            name=self._plan.name,
            nodes=tuple(self._nodes),
            dynamic_nodes=tuple(spec.id for spec in specs if spec.is_dynamic),
            pid=pid,
            start_time=started,
            boot_id=boot,
            foreground=self._foreground,
            machine_id=self._plan.machine_id,
            whole=self._plan.whole,
            daemon_port=None if self._foreground or not port.isdecimal() else int(port),
        )
        try:
            self._directory.write_index(entry)
        except OSError as error:
            self._warn(f"cannot write the index in {self._directory.path}: {error}")

    def record_process(self, pid: int) -> None:
        """Record a process to be killed if the runner is killed."""
        self._record(lambda: self._directory.record_process(pid))

    def record_mark(self, mark: str) -> None:
        """Record the mark in the environment of all processes."""
        self._record(lambda: self._directory.record_mark(mark))

    def _record(self, write: Callable[[], object]) -> None:
        try:
            write()
        except OSError as error:
            # nodes end with the runner in any case; only their children could survive its SIGKILL
            if not self._warned:
                self._warned = True
                self._warn(f"cannot record processes in {self._directory.path}: {error}")


class MachineTimers:
    """Timers of the state machine, which emit TimerFired.

    ``busy`` is computed for ``finish`` from the queues of the node, for ``left_over`` from those of
    all nodes.
    """

    def __init__(self, registry: QueueRegistry, emit: Callable[[StateEvent], None]) -> None:
        self._registry = registry
        self._emit = emit
        self._handles: dict[tuple[str | None, TimerName], asyncio.TimerHandle] = {}
        self._loop = asyncio.get_running_loop()

    def arm(self, command: ArmTimer) -> None:
        """Arm or move a timer."""
        node, timer = command.node, command.timer
        received: int | None = None
        if timer in ("finish", "left_over"):
            received = self._registry.received(node)
        self.cancel(node, timer)
        self._handles[node, timer] = self._loop.call_at(
            command.at, self._fire, node, timer, received
        )

    def cancel(self, node: str | None, timer: TimerName) -> None:
        if (handle := self._handles.pop((node, timer), None)) is not None:
            handle.cancel()

    def _fire(self, node: str | None, timer: TimerName, received: int | None) -> None:
        """``received``: messages received when the timer was armed; None for other timers."""
        del self._handles[node, timer]
        busy = False
        if received is not None:
            queued = self._registry.queued(node) > 0
            more = received != self._registry.received(node)
            busy = queued and more if timer == "finish" else queued or more
        self._emit(TimerFired(node, timer, busy))

    def close(self) -> None:
        for handle in self._handles.values():
            handle.cancel()
        self._handles.clear()


class Runner:
    """One dataflow on this machine, from its preparation to its result.

    Create it inside the event loop. ``close`` kills everything that still runs.
    """

    def __init__(
        self,
        preparer: Preparer,
        directory: RuntimeDir,
        reaper: ReaperProcess,
        *,
        on_event: Callable[[RunOutput], None],
        foreground: bool,
        keep_result: Callable[[DataflowResult], None] = lambda result: None,
        gate: OutputGate | None = None,
    ) -> None:
        """``keep_result`` is called before the result is reported.

        ``gate`` holds back the output of nodes while ``on_event`` is overloaded.
        """
        self.plan = plan = preparer.plan
        self.preparer = preparer
        self.link: LinkSupervisor | None = None
        """Created when the first edge crosses machines; only then its modules are imported."""
        self._on_event = on_event
        self._keep_result = keep_result
        self._loop = asyncio.get_running_loop()
        self._finished = anyio.Event()
        self._failure: BaseException | None = None
        self._dropped_before_stop: dict[str, int] | None = None
        pid, started, _ = own_identity()
        self._mark = f"dora-runner-{pid}-{started}"
        """Mark in the environment of each node, which its children inherit."""
        self._reported: RunnerState | None = None
        state = machine.RunnerMachine(
            plan.resolved.nodes,
            plan,
            default_finish_grace=preparer.default_finish_grace,
            log_dir=preparer.log_dir,
        )
        self.dispatcher = Dispatcher(state, self._execute, self._report_state)
        with ExitStack() as resources:
            opened = resources.enter_context
            # called last, when the descriptors of the other parts are closed
            resources.callback(kill_marked, self._mark)
            self.services = services = NodeServices(
                resources,
                plan,
                self.dispatcher,
                socket=directory.path / NODE_SOCKET,
                on_event=on_event,
                gate=gate,
            )
            warn = services.logs.warn
            self.files = RunnerFiles(directory, plan, services.nodes, foreground, warn)
            resources.callback(self._close_link)
            processes = Processes(services, self._mark, self.files.record_process)
            self.processes = opened(closing(processes))
            self.monitor = opened(closing(HealthMonitor(services)))
            self._timers = opened(closing(MachineTimers(services.registry, self.dispatcher.emit)))
            self._open(preparer.nodes)
            reaper.watch(self._loop, warn)
            resources.callback(reaper.unwatch)
            self._resources = resources.pop_all()

    def set_links(self, plan: LinkPlan, credentials: str | None) -> LinkSupervisor:
        """Set the streams; call this before queues of nodes are created, and ``apply`` after."""
        from dora_daemon.runner.link.supervisor import LinkSupervisor

        if self.link is not None:
            self.link.set_plan(plan, credentials)
            return self.link
        self.link = LinkSupervisor(plan, credentials, self.services, self.processes)
        return self.link

    def state(self) -> RunnerState:
        """Return the state of the dataflow on this machine."""
        state = self.dispatcher.state
        return RunnerState(
            phase=state.phase,
            result=state.result,
            link=None if self.link is None else self.link.report(),
            only_virtual_left=state.only_virtual_left,
            revision=self.services.nodes.revision,
        )

    def dropped(self) -> dict[str, int]:
        """Return by edge how many messages were dropped, without those that a stop discards."""
        if self._dropped_before_stop is not None:
            return self._dropped_before_stop
        return self.services.registry.dropped()

    def _report_state(self) -> None:
        """Report the state if it has changed."""
        state = self.state().without_figures()
        if state != self._reported:
            self._reported = state
            self._on_event(state)

    def _close_link(self) -> None:
        if self.link is not None:
            self.link.close()

    def _open(self, nodes: Iterable[PreparedNode]) -> None:
        """Create logs, queues and the index; nodes may connect afterwards."""
        services, plan = self.services, self.plan
        self.processes.expect(nodes)
        if plan.links is not None:
            self.set_links(plan.links, plan.credentials)
        for program in nodes:
            name, log = program.spec.id, services.logs.open_log(program)
            place, params = plan.places.get(name), plan.params.get(name, {})
            node = LocalNode(program, log, place, params)
            node.stopped = name in plan.stopped
            services.nodes.add(node)
        for spec in services.nodes.specs():
            if not spec.is_dynamic:
                services.router.create_inputs(spec)
        self.files.record_mark(self._mark)
        self.files.write_index()
        self.monitor.schedule()

    async def run(self) -> DataflowResult:
        """Run to the end."""
        self._loop.set_exception_handler(self._callback_failed)
        try:
            if self.link is not None:
                self.link.apply()
            self.dispatcher.emit(Prepared())
            await self._finished.wait()
            await self.services.readers.finish()
            if self._failure is not None:
                raise self._failure
            result = self.dispatcher.state.result
            assert result is not None
            return result
        finally:
            self._loop.set_exception_handler(None)

    def close(self) -> None:
        """Kill all processes and close all resources. The caller releases the directory."""
        self._resources.close()

    def _callback_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """End the run with the error of a callback of the event loop."""
        error = context.get("exception") or RuntimeError(context["message"])
        if self._failure is None:
            self._failure = error
        self._finished.set()

    def _execute(self, command: commands.Command) -> None:
        services, nodes = self.services, self.services.nodes
        if isinstance(command, commands.Announcement):
            services.registry.announce(command)
            services.registry.schedule_cleanup()
            return
        if isinstance(command, commands.LinkCommand):
            self._command_link(command)
            return
        match command:
            case commands.SpawnNode(node=node, incarnation=number):
                self.processes.spawn(nodes[node], number)
            case commands.SignalNode(node=node, signal=name):
                self.processes.signal(nodes[node], name)
            case commands.StageReplacement(node=node, incarnation=number):
                self.processes.stage(nodes[node], number)
            case commands.PromoteReplacement(node=node, incarnation=number):
                self.processes.promote(nodes[node], number)
            case commands.Admit(node=node, incarnation=number, restarts=restarts):
                services.sessions.admit(nodes[node], number, restarts)
            case commands.Refuse(node=node, message=message, cancelled=cancelled):
                services.sessions.refuse(node, message, cancelled=cancelled)
            case commands.SendGo(nodes=released):
                services.drops.started()
                services.sessions.release(released)
            case commands.SendStop(node=node, restarts=restarts):
                nodes[node].send(StopNode(restarts=restarts))
            case commands.ArmTimer():
                self._timers.arm(command)
            case commands.CancelTimer(node=node, timer=timer):
                self._timers.cancel(node, timer)
            case commands.ReportEvent(event=event):
                services.logs.note(event)
                if isinstance(event, DataflowStopping):
                    self._dropped_before_stop = services.registry.dropped()
                self._on_event(event)
            case commands.EmitLog(level=level, message=message, node=about):
                services.logs.emit(level, message, about)
            case commands.DropInputs(node=node):
                services.router.drop_inputs(node)
            case commands.FinishDataflow(result=result):
                self._keep_result(result)
                self._finished.set()

    def _command_link(self, command: commands.LinkCommand) -> None:
        link = self.link
        assert link is not None
        match command:
            case commands.SpawnLink(incarnation=number):
                link.spawn(number)
            case commands.AdmitLink(incarnation=number):
                link.close_lost_sources()
                self.services.sessions.admit_link(number)
            case commands.FinishLink(seconds=seconds):
                link.finish(seconds)
            case commands.SignalLink(signal=name):
                link.signal(name)
