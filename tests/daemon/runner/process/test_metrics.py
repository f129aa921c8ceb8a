"""Samples of processes and their children, also of those that cannot be read."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from dora_daemon.runner.nodes.monitor import sample_process
from dora_daemon.runner.process import metrics
from dora_daemon.runner.process.metrics import LoadMeter

UNREADABLE = [
    OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
    RuntimeError("file was empty"),
]


def raising(error: Exception) -> Callable[..., None]:
    def fail(*args: object, **options: object) -> None:
        raise error

    return fail


def unreadable(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def read(path: str) -> bytes:
        if path.endswith(f"/{name}"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return Path(path).read_bytes()

    monkeypatch.setattr(metrics, "_contents", read)


PARENT = """
import subprocess, sys, threading
child = "data = b'x' * 50_000_000; print(flush=True); input()"
def start():
    subprocess.run([sys.executable, "-c", child])
thread = threading.Thread(target=start)
thread.start()
thread.join()
"""


@pytest.mark.parametrize("lists", [True, False])
def test_children_are_included(monkeypatch: pytest.MonkeyPatch, lists: bool) -> None:
    monkeypatch.setattr(metrics, "_LISTS_CHILDREN", lists)
    if lists:  # a search through all processes takes milliseconds for each node
        monkeypatch.setattr(psutil, "Process", raising(AssertionError()))
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()  # of the child of a thread
        load = LoadMeter(parent.pid).sample(0.0)
        parent.communicate(b"\n")
    assert load is not None
    assert load.memory_bytes > 50_000_000
    assert load.cpu_seconds > 0


def test_a_process_that_cannot_be_read_has_no_load(monkeypatch: pytest.MonkeyPatch) -> None:
    unreadable(monkeypatch, "io")
    load = LoadMeter(os.getpid()).sample(0.0)
    assert load is not None
    assert load.read_bytes == 0
    assert load.memory_bytes > 0
    unreadable(monkeypatch, "stat")
    assert LoadMeter(os.getpid()).sample(0.0) is None


def test_shared_pages_are_read_again_after_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading them takes a millisecond."""
    read: list[int] = []

    def share(pid: int, resident: int) -> int:
        read.append(resident)
        return 1000

    monkeypatch.setattr(metrics, "_share", share)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        os.kill(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        meter = LoadMeter(process.pid)
        for now in (0.0, 3.0, 59.0, 61.0, 64.0):
            load = meter.sample(now)
            assert load is not None
            assert load.memory_bytes == 1000
        os.kill(process.pid, signal.SIGCONT)
        process.communicate(b"\n")
    assert len(read) == 2


@pytest.mark.parametrize("error", UNREADABLE)
def test_a_process_whose_state_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(psutil.Process, "status", raising(error))
    assert sample_process(os.getpid()) is None
