"""CPU and memory of a dataflow that has nothing to do."""

from __future__ import annotations

import time

import psutil

from .dataflow import BenchNode, MeasurementFailed, RunningDataflow, started
from .systems import System

NODES = 10
SETTLE, WATCH = 1.5, 4.0  # seconds


def ten_nodes(system: System) -> dict[str, float]:
    """Return what a chain of ten waiting nodes and everything that runs them use."""
    chain = [
        BenchNode(
            f"node{n}",
            "idler.py",
            {"in": f"node{n - 1}/out" if n else "dora/timer/secs/3600"},
            ("out",),
        )
        for n in range(NODES)
    ]
    with started(system, chain) as dataflow:
        _wait_until_ready(dataflow, [node.id for node in chain])
        time.sleep(SETTLE)
        root = psutil.Process(dataflow.process.pid)
        processes = [root, *root.children(recursive=True)]
        before, begun = _cpu_seconds(processes), time.monotonic()
        time.sleep(WATCH)
        used, watched = _cpu_seconds(processes) - before, time.monotonic() - begun
        memory = sum(process.memory_full_info().pss for process in processes)
    return {"cpu": 100 * used / watched, "memory": memory / 1e6}


def _cpu_seconds(processes: list[psutil.Process]) -> float:
    """Return the processor time that the processes have had, in ns-exact seconds."""
    return sum(_run_time(process.pid) for process in processes)


def _run_time(pid: int) -> float:
    """Return the time that all threads of a process have run: /proc/PID/stat counts in 10 ms."""
    total = 0
    for thread in psutil.Process(pid).threads():
        with open(f"/proc/{pid}/task/{thread.id}/schedstat", encoding="ascii") as file:
            total += int(file.read().split()[0])
    return total / 1e9


def _wait_until_ready(dataflow: RunningDataflow, nodes: list[str]) -> None:
    deadline = time.monotonic() + 60
    while not all(dataflow.result(node) for node in nodes):
        if time.monotonic() > deadline or dataflow.process.poll() is not None:
            raise MeasurementFailed(dataflow.system, "nodes did not get ready", dataflow.output())
        time.sleep(0.05)
