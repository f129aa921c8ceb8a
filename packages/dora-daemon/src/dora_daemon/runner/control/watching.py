"""The runner's periodic look at health and input timeouts; only when a node asks for it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from dora_daemon.runner.machine.events import NodeSilent
from dora_daemon.runner.machine.health import HealthWatch, ProcessSample
from dora_daemon.runner.machine.node import NodeState

if TYPE_CHECKING:
    from dora_daemon.runner.service import Runner


class Watcher:
    """Each ``health_check_interval`` seconds, if a node has a health check or an input timeout."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._handle: asyncio.TimerHandle | None = None
        self._health = HealthWatch()

    def look_soon(self) -> None:
        """Arm the next look, if there is something to look at."""
        wanted = any(
            spec.health_check_timeout is not None
            or any(i.input_timeout is not None for i in spec.inputs.values())
            for spec in self._runner.specs.values()
        )
        if wanted and self._handle is None:
            interval = self._runner.plan.resolved.health_check_interval
            self._handle = asyncio.get_running_loop().call_later(interval, self._look)

    def _look(self) -> None:
        self._handle = None
        now = time.monotonic()
        for node in list(self._runner.specs):
            self._look_at_health(node, now)
            self._look_at_inputs(node, now)
        self.look_soon()

    def _look_at_health(self, node: str, now: float) -> None:
        runner = self._runner
        timeout = runner.specs[node].health_check_timeout
        life = runner.state.nodes.get(node)
        if timeout is None or life is None or life.state is not NodeState.RUNNING:
            return
        if life.pid is None or (sample := sample_process(life.pid)) is None:
            return
        connected_at = runner.desk.connected_at[node]
        silent = self._health.look(node, life.pid, sample, connected_at=connected_at, now=now)
        if silent > timeout:
            runner.tell(NodeSilent(node, life.incarnation, silent))

    def _look_at_inputs(self, node: str, now: float) -> None:
        runner = self._runner
        life = runner.state.nodes.get(node)
        if life is None or life.state is not NodeState.RUNNING:
            return
        closed = runner.state.wiring.closed_inputs(node)
        for kept in runner.book.into(node):
            wanted = runner.specs[node].inputs.get(kept.edge.input)
            if wanted is None or wanted.input_timeout is None:
                continue
            if kept.edge.input in closed:
                runner.inputs.closed(node, kept.edge.input)
                continue
            runner.inputs.look(
                node,
                kept.edge.input,
                last_arrival=kept.keeper.statistics().last_arrival_ns / 1e9,
                timeout=wanted.input_timeout,
                now=now,
            )

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


def sample_process(pid: int) -> ProcessSample | None:
    """State and CPU time of a process; None if it has ended, which is noticed elsewhere."""
    import psutil  # only dataflows with a health check pay for the import

    stuck = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP, psutil.STATUS_DISK_SLEEP)
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            return ProcessSample(process.status() not in stuck, times.user + times.system)
    except psutil.Error:
        return None
