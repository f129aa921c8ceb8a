"""Counters of this machine for a snapshot of the cluster, read on request only."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Protocol

import anyio
from anyio.abc import TaskGroup

from dora_config.protocol.daemon import DaemonMessage
from dora_config.protocol.runner import (
    GetStatistics,
    Refusal,
    RunnerReply,
    Statistics,
)
from dora_config.protocol.snapshot import MachineLoad, MachineSample, PartSample, SampleMachine
from dora_daemon.agent.machine_lock import MachineLockReader
from dora_daemon.agent.runners.pending_requests import RunnerCalls

RUNNER_SECONDS = 2.0
"""Time for runners to answer, less than the coordinator waits for this machine."""


class SampledRunners(RunnerCalls, Protocol):
    """The runners that can be asked for counters."""

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
        waiting = [
            dataflow
            for dataflow in self._runners.connected()
            if not request.dataflows or dataflow in request.dataflows
        ]
        parts: list[PartSample] = []
        problems: list[str] = []
        complete = anyio.Event()

        def replied(dataflow: str, reply: RunnerReply | None, problem: str | None) -> None:
            if dataflow not in waiting:
                return
            waiting.remove(dataflow)
            match reply:
                case Statistics(edges=edges, at=at):
                    kept = edges[: request.max_edges - sum(len(part.edges) for part in parts)]
                    parts.append(PartSample(dataflow_id=dataflow, at=at, edges=kept))
                    if len(kept) < len(edges):
                        left = len(edges) - len(kept)
                        problems.append(f"left out edges of dataflow {dataflow}: {left}")
                case Refusal(message=message):
                    problems.append(message)
                case _:
                    problems.append(problem or f"no counters of dataflow {dataflow}")
            if not waiting:
                complete.set()

        for dataflow in tuple(waiting):
            self._runners.call(dataflow, GetStatistics(), partial(replied, dataflow))
        if waiting:
            with anyio.move_on_after(RUNNER_SECONDS):
                await complete.wait()
        problems += [
            f"the runner of dataflow {dataflow} has not answered for {RUNNER_SECONDS:g} s"
            for dataflow in waiting
        ]
        waiting.clear()
        self._send(
            MachineSample(
                sample=request.sample,
                parts=tuple(parts),
                load=machine_load(),
                operation=self._lock.holder(),
                problems=tuple(problems),
            )
        )


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
