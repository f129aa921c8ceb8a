"""The runner's end of a zygote (`dora_node_api.zygote`), which forks nodes."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from dora_config.zygote_process import start, take_early
from dora_daemon.runner.process.metrics import cpu_ticks
from dora_daemon.runner.process.prepare import PreparedNode
from dora_daemon.runner.process.spawn import ForkedProcess, NodeProcess
from dora_node_api.frozen import replace
from dora_node_api.protocol.spawn_request import SpawnRequest

LIMIT = 3.0
"""Seconds for an answer; then nodes are started as programs."""
WARM_LIMIT = 60.0
"""Seconds for a module of `warm` while its import uses CPU time."""
_IDLE_TICKS = 2
"""Clock ticks of CPU time that a process uses at most while it only waits for LIMIT seconds."""
_FOUND = "that the Python of dora finds without the node's folder and `env`"
MAX_OUTSTANDING = 8
"""Requests at once: the time for an answer begins with the request."""
WORTH_WAITING = 5
"""Number of nodes for which a zygote that imports its modules is faster than programs."""
MAX_FAILURES = 3
"""Failures in a row after which no other zygote is started."""
_PR_SET_CHILD_SUBREAPER = 36
"""Option of prctl(2): orphaned descendants become children of this process."""
_PRCTL: Any = getattr(ctypes.CDLL(None), "prctl", None)

Done = Callable[[NodeProcess | None, str], None]
"""Called with the process, or with None and the reason."""


def is_forkable(node: PreparedNode) -> bool:
    """Return whether to request the fork of a node; the zygote may still refuse it."""
    return node.spec.warm is not False and node.argv[:2] == (sys.executable, "-u")


@dataclass(slots=True, eq=False)
class _Process:
    pid: int
    channel: socket.socket
    early: bool
    """Whether the zygote was started before there was a runner."""
    ready: bool = False
    importing: str = ""
    """Module that it imports."""


@dataclass(slots=True, eq=False)
class _Fork:
    done: Done
    process: _Process
    """Process of the zygote."""
    channel: socket.socket
    outputs: tuple[int, int]
    """Read ends of its standard output and standard error."""
    timer: asyncio.TimerHandle | None = None


class ZygoteProcess:
    """Forks nodes for a runner. Create it inside the event loop."""

    def __init__(self, warn: Callable[[str, str], object]) -> None:
        """``warn`` logs a warning about a node."""
        self._loop = asyncio.get_running_loop()
        self._warn = warn
        self._process: _Process | None = None
        self._nodes = 0
        """Number of nodes that the zygote may fork."""
        self._warm: dict[str, str] = {}
        """Modules to import, and the first node that lists each."""
        self._not_imported: set[str] = set()
        self._hanging: set[str] = set()
        """Modules that are not imported again, because their import did not end."""
        self._failures = 0
        """Failures since the last node that it forked."""
        self._waiting: deque[tuple[SpawnRequest, Done]] = deque()
        self._outstanding: list[_Fork] = []

    def expect(self, nodes: Iterable[PreparedNode]) -> None:
        """Start a zygote if there are enough nodes for it, with those of earlier calls."""
        for node in filter(is_forkable, nodes):
            self._nodes += 1
            for name in node.spec.warm or ():
                self._warm.setdefault(name, node.spec.id)
        if (early := take_early()) is not None:
            self._use(*early, early=True)
            if not self._nodes:
                self._end()
        if self._nodes > 1 and self._process is None:
            self._start()

    def fork(self, request: SpawnRequest, done: Done) -> bool:
        """Fork a node soon and call ``done``; False: start it as a program."""
        process = self._process
        if process is None:
            if self._nodes > 1 and self._failures < MAX_FAILURES:
                self._start()  # for the next node
            return False
        if not (process.ready or process.early or self._nodes >= WORTH_WAITING):
            return False
        self._waiting.append((request, done))
        self._send_next()
        return True

    def stop_import(self) -> None:
        """Cancel the import of a module of `warm`, because a node that waits for it is stopped."""
        if self._process is not None and self._process.importing in self._warm:
            self._failed("the node is stopped")

    def close(self) -> None:
        """End the zygote; pending callbacks are not called."""
        self._waiting.clear()
        for fork in list(self._outstanding):
            self._forget(fork)
            for number in fork.outputs:
                os.close(number)
        self._end()

    # --- the process -----------------------------------------------------------------------------

    def _start(self) -> None:
        if (started := start(os.environ)) is None:
            self._failures = MAX_FAILURES
        else:
            self._use(*started, early=False)

    def _use(self, pid: int, channel: socket.socket, *, early: bool) -> None:
        channel.setblocking(False)
        self._process = _Process(pid, channel, early)
        self._loop.add_reader(channel, self._readable)

    def _readable(self) -> None:
        assert self._process is not None
        with suppress(OSError):
            if data := self._process.channel.recv(1 << 14):
                report = json.loads(data)
                if "failed" in report:
                    self._name_failed(report["failed"], report["error"])
                elif "importing" in report:
                    self._process.importing = report["importing"]
                else:
                    self._process.ready = True
                return
        self._failed("the zygote has ended")

    def _name_failed(self, module: str, error: str, kind: str = _FOUND) -> None:
        """Warn once about a module of `warm`; ``kind``: of modules that can be listed."""
        if module in self._warm and module not in self._not_imported:
            self._not_imported.add(module)
            self._warn(
                self._warm[module],
                f'cannot import "{module}" of `warm` before the node is forked: {error}; list only'
                f" modules {kind}",
            )

    def _failed(self, reason: str) -> None:
        """End the zygote. Nodes that it has forked are still reported."""
        self._failures += 1
        self._end()
        while self._waiting:
            _, done = self._waiting.popleft()
            done(None, reason)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            self._loop.remove_reader(process.channel)
            process.channel.close()
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)  # also processes of modules of `warm`
            with suppress(OSError):
                os.kill(process.pid, signal.SIGKILL)
                os.waitpid(process.pid, 0)

    # --- requests --------------------------------------------------------------------------------

    def _send_next(self) -> None:
        while self._waiting and self._process and len(self._outstanding) < MAX_OUTSTANDING:
            request, done = self._waiting.popleft()
            try:
                self._send(self._process, request, done)
            except OSError as error:
                done(None, str(error))

    def _send(self, process: _Process, request: SpawnRequest, done: Done) -> None:
        cpus = request.cpus or tuple(os.sched_getaffinity(0))
        process_json = replace(request, cpus=cpus).to_json()
        warm = [name for name in self._warm if name not in self._hanging]
        values = {"process": process_json, "warm": warm}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pipes: list[int] = []
        try:
            pipes += os.pipe()
            pipes += os.pipe()
            passed = [*pipes[1::2], theirs.fileno()]
            # set before the request, because the node becomes a child of this process at once
            _PRCTL(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            socket.send_fds(process.channel, [json.dumps(values).encode()], passed)
        except OSError:
            ours.close()
            for number in pipes[::2]:
                os.close(number)
            self._adopt_no_longer()
            raise
        finally:
            theirs.close()
            for number in pipes[1::2]:
                os.close(number)
        outputs = (pipes[0], pipes[2])
        fork = _Fork(done, process, ours, outputs)
        self._limit(fork, LIMIT)
        self._outstanding.append(fork)
        self._loop.add_reader(ours, self._answered, fork)

    def _forget(self, fork: _Fork) -> None:
        if fork.timer is not None:
            fork.timer.cancel()
        self._loop.remove_reader(fork.channel)
        fork.channel.close()  # ends a process that was not confirmed
        self._outstanding.remove(fork)
        self._adopt_no_longer()

    def _adopt_no_longer(self) -> None:
        if not self._outstanding:
            _PRCTL(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)

    def _answered(self, fork: _Fork) -> None:
        data = b""
        with suppress(OSError):
            data = fork.channel.recv(1 << 16)
        answer = json.loads(data or b"{}")
        if (pid := answer.get("pid")) is not None:
            self._failures = 0
            fork.done(NodeProcess(ForkedProcess(pid, *fork.outputs)), "")
            with suppress(OSError):
                fork.channel.send(b"1")
            self._forget(fork)
        else:
            if answer.get("stale") and fork.process is self._process:
                self._end()
                self._start()
            self._give_up(fork, answer.get("problem", "the zygote has ended"))
        self._send_next()

    def _limit(self, fork: _Fork, waited: float) -> None:
        """Check a fork after another LIMIT seconds; ``waited``: seconds since its request then."""
        used = cpu_ticks(fork.process.pid)
        fork.timer = self._loop.call_later(LIMIT, self._timed_out, fork, waited, used)

    def _timed_out(self, fork: _Fork, waited: float, used: int) -> None:
        process = fork.process
        name = process.importing if process.importing in self._warm else ""
        if name and waited < WARM_LIMIT and cpu_ticks(process.pid) - used > _IDLE_TICKS:
            self._limit(fork, waited + LIMIT)
            return
        reason = f"the zygote did not answer within {waited:g} s"
        if process is self._process:
            if name:
                error = f"it takes more than {waited:g} s, so the nodes are started as programs"
                self._name_failed(name, error, "whose import ends soon")
                self._hanging.add(name)
            self._failed(reason)
        self._give_up(fork, reason)

    def _give_up(self, fork: _Fork, reason: str) -> None:
        self._forget(fork)
        for number in fork.outputs:
            os.close(number)
        fork.done(None, reason)
