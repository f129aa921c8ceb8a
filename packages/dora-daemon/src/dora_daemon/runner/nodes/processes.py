"""Processes of the nodes and of the link: spawned, read, and waited for."""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from dora_config.dataflow.sources import TimerSource
from dora_daemon.runner.logs.logs import LineHandler
from dora_daemon.runner.machine import events
from dora_daemon.runner.nodes.local_nodes import LocalNode
from dora_daemon.runner.nodes.node_config import operator_configs
from dora_daemon.runner.nodes.services import NodeServices
from dora_daemon.runner.process.memory_kills import MemoryKills
from dora_daemon.runner.process.prepare import PreparedNode
from dora_daemon.runner.process.spawn import NodeProcess, fork, raise_open_files, spawn, why_not
from dora_daemon.runner.process.zygote import ZygoteProcess, is_forkable
from dora_node_api.protocol.launch_config import LaunchConfig
from dora_node_api.protocol.spawn_request import SpawnRequest


class Processes:
    """Processes of nodes and link.

    Use it on the main thread: a process is killed when the thread that forked it ends.
    """

    def __init__(
        self,
        services: NodeServices,
        mark: str,
        record: Callable[[int], object],
    ) -> None:
        """``mark`` is in the environment of each node; ``record`` records a pid for the reaper."""
        self._services = services
        self._mark = mark
        self._record = record
        self._dispatcher = services.dispatcher
        self._emit = services.dispatcher.emit
        self._sessions = services.sessions
        self._open_files = raise_open_files()
        self._memory_kills = MemoryKills()
        self._zygote = ZygoteProcess(lambda node, text: services.logs.emit("warn", text, node))
        self._starting: dict[LocalNode, str] = {}
        """Nodes without a process yet, and the last signal that was sent to them."""
        self._waiting: deque[tuple[LocalNode, int]] = deque()
        self._alive: dict[NodeProcess, Callable[[events.Exit], None]] = {}
        """Processes that have not ended, each with the function that is called with its exit."""
        self._loop = asyncio.get_running_loop()
        self._watches_children = False
        """Whether SIGCHLD is handled, because the system has no process descriptors."""

    def expect(self, nodes: Iterable[PreparedNode]) -> None:
        """Prepare to spawn these nodes."""
        self._zygote.expect(nodes)

    def spawn(self, node: LocalNode, incarnation: int) -> None:
        """Start a process in a later turn of the loop, so that requests are answered meanwhile."""
        self._starting[node] = ""
        self._waiting.append((node, incarnation))
        if len(self._waiting) == 1:
            self._loop.call_soon(self._spawn_next)

    def _spawn_next(self) -> None:
        if not self._waiting:
            return
        try:
            self._spawn(*self._waiting[0])
        finally:
            self._waiting.popleft()
            if self._waiting:
                self._loop.call_soon(self._spawn_next)

    def _spawn(self, node: LocalNode, incarnation: int) -> None:
        request = self._request(node, incarnation, node.program)
        done = partial(self._forked, node, incarnation, request)
        if not (is_forkable(node.program) and self._zygote.fork(request, done)):
            self._execute(node, incarnation, request)

    def _forked(
        self,
        node: LocalNode,
        incarnation: int,
        request: SpawnRequest,
        running: NodeProcess | None,
        reason: str,
    ) -> None:
        if running is None:
            node.log.note("debug", f"not forked but started as a program: {reason}")
            self._execute(node, incarnation, request)
        else:
            self._adopt(running, incarnation, node.log)
            self._spawned(node, incarnation, running)

    def _execute(self, node: LocalNode, incarnation: int, request: SpawnRequest) -> None:
        try:
            running = self.start(request, incarnation, node.log)
        except OSError as error:
            self._starting.pop(node, None)
            self._emit(events.SpawnFailed(node.id, incarnation, str(error)))
            return
        self._spawned(node, incarnation, running)

    def _spawned(self, node: LocalNode, incarnation: int, running: NodeProcess) -> None:
        node.log.tail.clear()
        node.process = running
        name = self._starting.pop(node, "")
        self.watch(running, partial(self._ended, node, running))
        self._emit(events.NodeSpawned(node.id, incarnation, running.pid))
        if name:
            running.signal_group(name)

    def signal(self, node: LocalNode, name: str) -> None:
        """Signal the process of a node, or the one that is being started."""
        if node.process is not None:
            node.process.signal_group(name)
        elif node in self._starting:
            self._starting[node] = name
            self._zygote.stop_import()

    def stage(self, node: LocalNode, incarnation: int) -> None:
        """Start the process of a node's replacement beside the running one."""
        staged = node.replacement
        assert staged is not None
        staged.incarnation = incarnation
        try:
            request = self._request(node, incarnation, staged.program)
            staged.process = self.start(request, incarnation, staged.log)
        except OSError as error:
            node.replacement, staged.error = None, error
            staged.log.close()
            self._emit(events.ReplacementAbandoned(node.id, incarnation))
            return
        self.watch(staged.process, partial(self._ended, node, staged.process))

    def promote(self, node: LocalNode, incarnation: int) -> None:
        """Make the staged process that of the node, after the end of the old one."""
        if node.replacement is not None and node.replacement.process is not None:
            self._exit_of(node.replacement.process)  # its end may not be detected yet
        promoted, node.replacement = node.replacement, None
        if promoted is None:
            self._emit(events.ReplacementLost(node.id, incarnation))
            return
        node.change_program(promoted.program, promoted.log)
        node.process = promoted.process
        if promoted.connection is not None:
            # as if it had just sent Hello
            node.applicant = promoted.connection
            self._emit(events.NodeConnected(node.id, incarnation, promoted.connection.pid))

    def _request(self, node: LocalNode, incarnation: int, prepared: PreparedNode) -> SpawnRequest:
        variables = {
            **prepared.variables,
            "DORA_NODE_CONFIG": self._launch_config(node, incarnation).to_text(),
        }
        return SpawnRequest(
            prepared.argv,
            str(prepared.cwd),
            variables,
            cpus=prepared.cpus,
            open_files=self._open_files,
        )

    def _launch_config(self, node: LocalNode, incarnation: int) -> LaunchConfig:
        return LaunchConfig(
            socket=str(self._services.socket),
            node_id=node.id,
            incarnation=incarnation,
            runner=self._mark,
            receives_arrays=any(
                not isinstance(entry.source, TimerSource) for entry in node.spec.inputs.values()
            ),
            operators=operator_configs(node.spec),
        )

    def start(
        self,
        request: SpawnRequest,
        incarnation: int,
        log: LineHandler,
        run: Callable[[], int] | None = None,
    ) -> NodeProcess:
        """Start a process at once; its output goes to ``log``. Raises OSError.

        ``run`` does the same as the program, and is called in a fork where that is possible.
        """
        try:
            running = (fork(request, run) if run else None) or spawn(request)
        except (OSError, ValueError) as error:
            program = request.argv[0]
            raise OSError(f"{program} in {request.cwd}: {why_not(program, error)}") from error
        self._adopt(running, incarnation, log)
        return running

    def _adopt(self, running: NodeProcess, incarnation: int, log: LineHandler) -> None:
        self._record(running.pid)
        running.incarnation = incarnation
        running.read_into(log)

    def watch(self, running: NodeProcess, on_exit: Callable[[events.Exit], None]) -> None:
        """Call ``on_exit`` once the process has ended and its output was read."""
        self._alive[running] = on_exit
        descriptor = running.exit_fd
        if descriptor is not None:
            self._loop.add_reader(descriptor, self._exit_of, running)
        elif not self._watches_children:
            self._watches_children = True
            self._loop.add_signal_handler(signal.SIGCHLD, self._check_all)
            self._loop.call_soon(self._check_all)

    def _check_all(self) -> None:
        for running in list(self._alive):
            self._exit_of(running)

    def _exit_of(self, running: NodeProcess) -> None:
        handled = running.exit is not None
        if handled or (status := running.reap()) is None:
            return
        status = self._memory_kills.explain(status, self._loop.time())
        self._close(running)
        self._alive.pop(running)(status)

    def _close(self, running: NodeProcess) -> None:
        if running.exit_fd is not None:
            self._loop.remove_reader(running.exit_fd)
        running.close()

    def _ended(self, node: LocalNode, running: NodeProcess, status: events.Exit) -> None:
        if node.process is running:
            node.process = None
        elif (staged := node.replacement) is not None and staged.process is running:
            node.replacement = None
            staged.log.close()
            self._dispatcher.notify()
            return
        self._sessions.exited(node, running.incarnation, status)

    def close(self) -> None:
        """Kill the running processes and wait for their end, without events."""
        self._waiting.clear()
        self._zygote.close()
        for running in self._alive:
            running.signal_group("SIGKILL")
        for running in self._alive:
            running.wait()
            self._close(running)
        self._alive.clear()
        if self._watches_children:
            self._loop.remove_signal_handler(signal.SIGCHLD)
