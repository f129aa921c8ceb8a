"""Whole-process times of short commands against a coordinator without dataflows."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .dataflow import MeasurementFailed
from .systems import System

COMMANDS = {"--help": ("--help",), "list": ("list",), "stop": ("stop", "--all")}
UNITS = {f"{name}{part}": "ms" for name in COMMANDS for part in ("", " cpu")}
_START = 10.0  # seconds until the coordinator listens


def whole_processes(count: int, system: System) -> dict[str, float]:
    """Return medians of wall and CPU time of each command, in milliseconds."""
    numbers: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as home, _coordinator(system, home) as environment:
        for name, words in COMMANDS.items():
            argv = [str(system.programs / "dora"), *words]
            _timed(argv, environment, home)  # writes byte code, fills caches
            times = [_timed(argv, environment, home) for _ in range(count)]
            numbers[name] = 1e3 * statistics.median(wall for wall, _ in times)
            numbers[f"{name} cpu"] = 1e3 * statistics.median(cpu for _, cpu in times)
    return numbers


def _timed(argv: list[str], environment: dict[str, str], folder: str) -> tuple[float, float]:
    """Return wall and CPU time of a process in seconds."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        argv,
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    return wall, usage.ru_utime + usage.ru_stime


@contextmanager
def _coordinator(system: System, home: str) -> Iterator[dict[str, str]]:
    """Run a coordinator; yield the environment of its clients."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = system.environment() | {"HOME": home, "DORA_COORDINATOR_PORT": str(port)}
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        environment.pop(name, None)
    process = subprocess.Popen(
        [str(system.programs / "dora"), "coordinator", "--port", str(port), "--store", "memory"],
        env=environment,
        cwd=home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_until_it_listens(system, process, port)
        yield environment
    finally:
        process.kill()
        process.wait()


def _wait_until_it_listens(system: System, process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            if time.monotonic() > deadline or process.poll() is not None:
                raise MeasurementFailed(system, "the coordinator does not listen", "") from None
        time.sleep(0.02)
