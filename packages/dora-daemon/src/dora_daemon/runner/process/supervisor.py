"""Processes of all nodes: spawned one per turn of the event loop, read, and waited for."""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dora_daemon.runner.logs.logs import NodeLog, OutputReader
from dora_daemon.runner.machine.commands import SpawnNode
from dora_daemon.runner.machine.events import Exit, NodeSpawned, SpawnFailed, StateEvent
from dora_daemon.runner.process.memory_kills import MemoryKills
from dora_daemon.runner.process.prepare import PreparedNode
from dora_daemon.runner.process.spawn import NodeProcess, SpawnRequest, spawn, why_not


@dataclass(slots=True)
class RunningProcess:
    """A running process and the readers of its output."""

    node: str
    incarnation: int
    process: NodeProcess
    readers: tuple[OutputReader, ...]

    def release(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.process.exit_fd is not None:
            loop.remove_reader(self.process.exit_fd)
        for reader in self.readers:
            reader.finish()
        self.process.close()


class Processes:
    """Use it on the main thread: a process is killed when the thread that forked it ends."""

    def __init__(
        self,
        *,
        prepared: Mapping[str, PreparedNode],
        logs: Mapping[str, NodeLog],
        config_for: Callable[[str, int], str],
        record: Callable[[int], object],
        emit: Callable[[StateEvent], None],
        on_exited: Callable[[str, int, Exit], None],
        on_staged_exit: Callable[[], None],
        open_files: tuple[int, int] | None = None,
    ) -> None:
        """``config_for`` returns DORA_NODE_CONFIG; ``record`` records a pid for the reaper."""
        self._prepared = prepared
        self._logs = logs
        self._config_for = config_for
        self._record = record
        self._emit = emit
        self._on_exited = on_exited
        self._on_staged_exit = on_staged_exit
        self._open_files = open_files
        self._memory_kills = MemoryKills()
        self._waiting: deque[SpawnNode] = deque()
        self.running: dict[str, RunningProcess] = {}
        self.staged: dict[str, RunningProcess] = {}
        """Processes that will replace a node's running one."""
        self._staged_logs: dict[str, NodeLog] = {}
        self._loop = asyncio.get_running_loop()
        self._watches_children = False
        """SIGCHLD is handled, because process descriptors do not exist here."""

    def spawn(self, command: SpawnNode) -> None:
        """Start a process in a later turn of the loop, so that requests are answered meanwhile."""
        self._waiting.append(command)
        if len(self._waiting) == 1:
            self._loop.call_soon(self._spawn_next)

    def _spawn_next(self) -> None:
        if not self._waiting:
            return
        command = self._waiting[0]
        try:
            self._spawn(command)
        finally:
            self._waiting.popleft()
            if self._waiting:
                self._loop.call_soon(self._spawn_next)

    def _spawn(self, command: SpawnNode) -> None:
        node, number = command.node, command.incarnation
        try:
            running = self._start(node, number, self._prepared[node], self._logs[node])
        except OSError as error:
            self._emit(SpawnFailed(node, number, str(error)))
            return
        self.running[node] = running
        self._watch(running)
        self._emit(NodeSpawned(node, number, running.process.pid))

    def stage(self, node: str, incarnation: int, prepared: PreparedNode, log: NodeLog) -> None:
        """Start a process beside the running one. Raises OSError."""
        running = self.staged[node] = self._start(node, incarnation, prepared, log)
        self._staged_logs[node] = log
        self._watch(running)

    def promote(self, node: str) -> RunningProcess | None:
        """Make the staged process the node's process; return None if it has ended."""
        if node in self.staged:
            self._exit_of(self.staged[node])  # its end may not be noticed yet
        running = self.staged.pop(node, None)
        if running is not None:
            self.running[node] = running
            del self._staged_logs[node]
        return running

    def drop_staged(self, node: str) -> None:
        """Kill the staged process of a node."""
        running = self.staged.get(node)
        if running is not None:
            running.process.signal_group("SIGKILL")

    def _start(
        self, node: str, incarnation: int, prepared: PreparedNode, log: NodeLog
    ) -> RunningProcess:
        variables = {
            **prepared.variables,
            "DORA_NODE_CONFIG": self._config_for(node, incarnation),
        }
        request = SpawnRequest(
            prepared.argv,
            str(prepared.cwd),
            variables,
            cpus=prepared.cpus,
            open_files=self._open_files,
        )
        try:
            process = spawn(request)
        except (OSError, ValueError) as error:
            program = prepared.argv[0]
            raise OSError(f"{program} in {prepared.cwd}: {why_not(program, error)}") from error
        self._record(process.pid)
        log.tail.clear()
        readers = (
            OutputReader(process.stdout, "stdout", log),
            OutputReader(process.stderr, "stderr", log),
        )
        return RunningProcess(node, incarnation, process, readers)

    def _watch(self, running: RunningProcess) -> None:
        descriptor = running.process.exit_fd
        if descriptor is not None:
            self._loop.add_reader(descriptor, self._exit_of, running)
        elif not self._watches_children:
            self._watches_children = True
            self._loop.add_signal_handler(signal.SIGCHLD, self._look_at_all)
            self._loop.call_soon(self._look_at_all)

    def _look_at_all(self) -> None:
        for running in [*self.running.values(), *self.staged.values()]:
            self._exit_of(running)

    def _exit_of(self, running: RunningProcess) -> None:
        handled = running.process.exit is not None
        if handled or (status := running.process.reap()) is None:
            return
        status = self._memory_kills.explain(status, self._loop.time())
        self._release(running)
        if self.staged.get(running.node) is running:
            del self.staged[running.node]
            self._staged_logs.pop(running.node).close()
            self._on_staged_exit()
            return
        self._on_exited(running.node, running.incarnation, status)

    def _release(self, running: RunningProcess) -> None:
        running.release(self._loop)
        if self.running.get(running.node) is running:
            del self.running[running.node]

    def signal(self, node: str, name: str) -> None:
        """Signal the whole group of a node's process, if it runs."""
        running = self.running.get(node)
        if running is not None:
            running.process.signal_group(name)

    def close(self) -> None:
        """Kill everything that still runs and wait for its end, without events."""
        self._waiting.clear()
        left = [*self.running.values(), *self.staged.values()]
        self.staged.clear()
        for running in left:
            running.process.signal_group("SIGKILL")
        for running in left:
            running.process.wait()
            self._release(running)
        if self._watches_children:
            self._loop.remove_signal_handler(signal.SIGCHLD)
