"""Counters of this machine for a snapshot of the cluster, read on request only."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import anyio
from anyio.abc import TaskGroup

from dora_config.protocol.daemon import DaemonMessage
from dora_config.protocol.runner import GetStatistics, Statistics
from dora_config.protocol.snapshot import MachineLoad, MachineSample, PartSample, SampleMachine
from dora_daemon.agent.machine_lock import MachineLockReader
from dora_daemon.agent.runners.calls import NotAnswered, RunnerCalls, call

RUNNER_SECONDS = 2.0
"""Time for runners to answer, less than the coordinator waits for this machine."""


class SampledRunners(RunnerCalls, Protocol):
    """The runners whose counters are sampled."""

    def connected(self) -> list[str]:
        """Return the dataflows whose runners have answered before."""


class Sampler:
    """Answers `SampleMachine`; runners read shared memory, so that nodes are not involved."""

    def __init__(
        self, tasks: TaskGroup, runners: SampledRunners, send: Callable[[DaemonMessage], None]
    ) -> None:
        self._tasks = tasks
        self._runners = runners
        self._send = send
        self._lock = MachineLockReader()

    def start(self, request: SampleMachine) -> None:
        """Send the sample once all runners have answered or the time is over."""
        self._tasks.start_soon(self._sample, request)

    async def _sample(self, request: SampleMachine) -> None:
        parts: list[PartSample] = []
        problems: list[str] = []

        async def read(dataflow: str) -> None:
            try:
                found = await self._statistics(dataflow)
            except NotAnswered as error:
                problems.append(str(error))
                return
            kept = found.edges[: request.max_edges - sum(len(part.edges) for part in parts)]
            parts.append(PartSample(dataflow_id=dataflow, at=found.at, edges=kept))
            if len(kept) < len(found.edges):
                left = len(found.edges) - len(kept)
                problems.append(f"left out edges of dataflow {dataflow}: {left}")

        async with anyio.create_task_group() as tasks:
            for dataflow in self._runners.connected():
                if not request.dataflows or dataflow in request.dataflows:
                    tasks.start_soon(read, dataflow)
        self._send(
            MachineSample(
                sample=request.sample,
                parts=tuple(parts),
                load=machine_load(),
                operation=self._lock.holder(),
                problems=tuple(problems),
            )
        )

    async def _statistics(self, dataflow: str) -> Statistics:
        """Raises NotAnswered."""
        try:
            with anyio.fail_after(RUNNER_SECONDS):
                reply = await call(self._runners, dataflow, GetStatistics())
        except TimeoutError as late:
            raise NotAnswered(
                f"the runner of dataflow {dataflow} has not answered for {RUNNER_SECONDS:g} s"
            ) from late
        if not isinstance(reply, Statistics):
            raise NotAnswered(f"no counters of dataflow {dataflow}")
        return reply


def machine_load() -> MachineLoad:
    """Return the load of this machine."""
    import psutil  # needed by few daemons

    times, memory = psutil.cpu_times(), psutil.virtual_memory()
    used = free = 0
    with suppress(OSError):  # the working directory was removed
        disk = psutil.disk_usage(".")
        used, free = disk.used, disk.free
    idle = times.idle + getattr(times, "iowait", 0.0)
    # `guest` time is contained in `user`.
    busy = sum(times) - idle - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return MachineLoad(
        cpus=psutil.cpu_count() or 0,
        cpu_seconds=busy,
        memory_bytes=memory.total - memory.available,
        memory_total_bytes=memory.total,
        disk_bytes=used,
        disk_total_bytes=used + free,  # without the space that is reserved for root
    )
