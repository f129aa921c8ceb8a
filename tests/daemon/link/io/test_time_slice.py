"""The short time slice that a thread requests."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dora_daemon.link.io import time_slice


def _in_thread(run: Callable[[], tuple[int, int, int]]) -> tuple[int, int, int]:
    found: list[tuple[int, int, int]] = []
    thread = threading.Thread(target=lambda: found.append(run()))
    thread.start()
    thread.join()
    return found[0]


def _scheduling() -> tuple[int, int, int]:
    """Return policy, nice value and time slice of the calling thread; -1 without the last."""
    file = Path("/proc/thread-self/sched")  # absent without CONFIG_SCHED_DEBUG
    lines = file.read_text().splitlines() if file.exists() else []
    slices = [line.rpartition(":")[2] for line in lines if line.startswith("se.slice ")]
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    return os.sched_getscheduler(0), nice, int(slices[0]) if slices else -1


def _after_request() -> tuple[int, int, int]:
    time_slice.request_short_slice()
    return _scheduling()


def test_only_the_slice_of_the_calling_thread_changes() -> None:
    policy, nice, before = _scheduling()
    release = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))
    grants = before > 0 and release >= (6, 12) and os.uname().machine in time_slice._SCHED_SETATTR
    assert _in_thread(_after_request) == (policy, nice, time_slice.SHORT_NS if grants else before)
    assert _scheduling() == (policy, nice, before)


def test_another_policy_stays() -> None:
    def batch() -> tuple[int, int, int]:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        return _after_request()

    assert _in_thread(batch)[0] == os.SCHED_BATCH


def test_an_unknown_machine_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_slice, "_SCHED_SETATTR", {})
    assert _in_thread(_after_request) == _scheduling()
