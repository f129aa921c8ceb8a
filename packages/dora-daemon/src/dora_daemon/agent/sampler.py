"""Counters of this machine for a snapshot of the cluster, read on request only."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
from pydantic import ValidationError

from dora_config.access import state_dir
from dora_config.protocol import snapshot as snapshots
from dora_config.protocol.envelope import clean_text
from dora_config.protocol.runner import GetStatistics, Statistics
from dora_daemon.agent.runners.registry import NotAnswered, RunnerRegistry

RUNNER_SECONDS = 2.0
"""Seconds for runners to answer; less than the coordinator waits for this machine."""
SILENT_SECONDS = 10.0
"""Seconds without requests to a runner that did not answer in time, which delays each sample."""
MAX_LEASE_TEXT: Final = 16 * 1024
"""Bytes that are read from the record of a command."""
MAX_TEXT: Final = 200
"""Characters of a command or operator."""


def lease_file() -> Path:
    """Return the path of the record of a command of this account that changes this machine."""
    machine = ""
    with suppress(OSError):
        machine = Path("/etc/machine-id").read_text().strip()
    return state_dir() / f"cluster-{machine}.lease"


def lease_holder() -> snapshots.MachineOperation | None:
    """Return the command that changes this machine, if its record was updated recently."""
    with suppress(OSError, ValueError, RecursionError, KeyError, TypeError, ValidationError):
        with lease_file().open("rb") as file:
            age = time.time() - os.fstat(file.fileno()).st_mtime
            holder: dict[str, Any] = json.loads(file.read(MAX_LEASE_TEXT))["result"]
        if abs(age) < holder["seconds"]:
            return snapshots.MachineOperation(
                command=clean_text(holder["command"], limit=MAX_TEXT),
                operator=clean_text(holder["operator"], limit=MAX_TEXT),
                since=holder["since"],
            )
    return None


@dataclass(eq=False)
class Sampler:
    """Answers `SampleMachine`; runners read shared memory, so that nodes are not involved."""

    _runners: RunnerRegistry
    _silent: dict[str, float] = field(default_factory=dict, init=False)
    """Earliest time of the next request to each runner that has not answered."""

    async def answer(self, request: snapshots.SampleMachine) -> snapshots.MachineSample:
        """Return the sample once all runners have answered or the time is over."""
        parts: dict[str, Statistics] = {}
        problems: list[str] = []

        async def read(dataflow: str) -> None:
            try:
                found = await self._statistics(dataflow)
            except NotAnswered as error:
                problems.append(str(error))
                return
            taken = sum(len(part.edges) for part in parts.values())
            kept = found.edges[: request.max_edges - taken]
            parts[dataflow] = Statistics(edges=kept, at=found.at)
            if len(kept) < len(found.edges):
                left = len(found.edges) - len(kept)
                problems.append(f"left out edges of dataflow {dataflow}: {left}")

        operation = await anyio.to_thread.run_sync(lease_holder)
        async with anyio.create_task_group() as tasks:
            for dataflow in self._runners.connected():
                if not request.dataflows or dataflow in request.dataflows:
                    tasks.start_soon(read, dataflow)
        return snapshots.MachineSample(
            parts=parts, load=machine_load(), operation=operation, problems=tuple(problems)
        )

    async def _statistics(self, dataflow: str) -> Statistics:
        """Return the counters of a dataflow. Raises NotAnswered."""
        silent = NotAnswered(
            f"the runner of dataflow {dataflow} has not answered for {RUNNER_SECONDS:g} s; it may "
            "be suspended"
        )
        if anyio.current_time() < self._silent.get(dataflow, 0.0):
            raise silent
        self._silent.pop(dataflow, None)
        try:
            with anyio.fail_after(RUNNER_SECONDS):
                reply = await self._runners.ask(dataflow, GetStatistics())
        except TimeoutError as late:
            self._silent[dataflow] = anyio.current_time() + SILENT_SECONDS
            raise silent from late
        if not isinstance(reply, Statistics):
            raise NotAnswered(f"no counters of dataflow {dataflow}")
        return reply


def machine_load() -> snapshots.MachineLoad:
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
    return snapshots.MachineLoad(
        cpus=psutil.cpu_count() or 0,
        cpu_seconds=busy,
        memory_bytes=memory.total - memory.available,
        memory_total_bytes=memory.total,
        disk_bytes=used,
        disk_total_bytes=used + free,  # without the space that is reserved for root
    )
