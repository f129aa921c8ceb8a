"""Checks shared memory periodically, and health and input timeouts if a node has any."""

from __future__ import annotations

import asyncio
import time

from dora_config.history.entries import InputRecovered, InputTimedOut
from dora_config.protocol.runner_events import RECENT_SECONDS
from dora_daemon.runner.errors import QueueUnavailable
from dora_daemon.runner.machine.commands import RepeatClosed
from dora_daemon.runner.machine.events import NodeCorrupted, NodeStalled
from dora_daemon.runner.machine.health import ProcessSample
from dora_daemon.runner.machine.node import NodeLifecycle, NodeState
from dora_daemon.runner.nodes.queues import QueueEntry
from dora_daemon.runner.nodes.services import NodeServices


class HealthMonitor:
    """Takes samples every ``health_check_interval`` seconds."""

    def __init__(self, services: NodeServices) -> None:
        self._services = services
        self._dispatcher = services.dispatcher
        self._isolated: list[QueueEntry] = []
        """Overwritten queues that cannot be replaced, because their readers are not nodes."""
        self._nodes = services.nodes
        self._registry = services.registry
        self._history = services.logs.history
        self._interval = services.plan.resolved.health_check_interval
        self._handle: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._memory_handle = self._loop.call_later(RECENT_SECONDS, self._check_memory)

    def schedule(self) -> None:
        """Schedule the next check if there is something to check."""
        needed = any(
            spec.health_check_timeout is not None
            or any(i.input_timeout is not None for i in spec.inputs.values())
            for spec in self._nodes.specs()
        )
        if needed and self._handle is None:
            self._handle = self._loop.call_later(self._interval, self._check)

    def _check(self) -> None:
        self._handle = None
        now = time.monotonic()
        for node in self._dispatcher.state.nodes():
            if node.state is NodeState.RUNNING:
                self._check_health(node, now)
                self._check_inputs(node.id, now)
        self.schedule()

    def _check_memory(self) -> None:
        problems, unclear = self._registry.check()
        for node in self._dispatcher.state.nodes() if problems else ():
            if node.id in problems:
                self._dispatcher.emit(NodeCorrupted(node.id, node.incarnation, problems[node.id]))
        for entry, text in unclear:
            if not {entry.writer, entry.edge.target} & problems.keys():
                self._isolate(entry, text)
        self._memory_handle = self._loop.call_later(RECENT_SECONDS, self._check_memory)

    def _isolate(self, entry: QueueEntry, text: str) -> None:
        """Replace a queue that one of its two ends has overwritten; neither of them is killed."""
        edge = entry.edge
        if entry in self._isolated:
            return
        try:
            renewed = self._services.router.renew(entry)
        except QueueUnavailable as error:
            self._services.logs.warn(str(error))
            return
        if not renewed:
            self._isolated.append(entry)
        elif edge.input in self._dispatcher.state.closed_inputs(edge.target):
            self._registry.announce(RepeatClosed(edge.target, (edge.input,)))
        done = "the input has a new queue, the messages in the old one are lost; " * renewed
        self._services.logs.warn(
            f"{text}: node {edge.source} or node {edge.target} has overwritten its part of the "
            f"dataflow's shared memory; {done}look for native code in them that writes beyond its "
            "buffers"
        )

    def _check_health(self, node: NodeLifecycle, now: float) -> None:
        local = self._nodes[node.id]
        timeout = local.spec.health_check_timeout
        if timeout is None or node.pid is None or (sample := sample_process(node.pid)) is None:
            return
        connected_at = local.connected_at
        seconds = local.health.sample(node.pid, sample, connected_at=connected_at, now=now)
        if seconds > timeout:
            self._dispatcher.emit(NodeStalled(node.id, node.incarnation, seconds))

    def _check_inputs(self, node: str, now: float) -> None:
        closed = self._dispatcher.state.closed_inputs(node)
        local = self._nodes[node]
        for entry in self._registry.into(node):
            name = entry.edge.input
            wanted = local.spec.inputs.get(name)
            if wanted is None or wanted.input_timeout is None:
                continue
            if name in closed:
                local.inputs.closed(name)
                continue
            change = local.inputs.sample(
                name,
                last_arrival=entry.keeper.statistics().last_arrival_ns / 1e9,
                timeout=wanted.input_timeout,
                now=now,
            )
            if change == "broken":
                timeout = wanted.input_timeout
                self._history.add(InputTimedOut(node=node, input=name, timeout=timeout))
            elif change == "recovered":
                self._history.add(InputRecovered(node=node, input=name))

    def close(self) -> None:
        self._memory_handle.cancel()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


def sample_process(pid: int) -> ProcessSample | None:
    """Return state and CPU time of a process; None if it has ended or cannot be read."""
    import psutil  # only dataflows with a health check need it

    stalled = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP, psutil.STATUS_DISK_SLEEP)
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            return ProcessSample(process.status() not in stalled, times.user + times.system)
    except (psutil.Error, OSError, RuntimeError):
        return None
