"""Identities of processes: pid, start time and boot id."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support.waiting import wait_until

from dora_config.process_identity import boot_id, is_alive, start_time

MISSING_PID = 2**22 + 1


def test_own_process_is_alive_under_its_start_time_only() -> None:
    started = start_time(os.getpid())
    assert started is not None
    assert is_alive(os.getpid(), started)
    assert not is_alive(os.getpid(), started + 1)


def test_missing_process_has_no_start_time() -> None:
    assert start_time(MISSING_PID) is None
    assert not is_alive(MISSING_PID, 0)


def test_boot_id_is_stable() -> None:
    assert boot_id() == boot_id()
    assert "\n" not in boot_id()


@pytest.mark.integration
def test_zombie_is_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert child.stdin is not None
    try:
        started = start_time(child.pid)
        assert started is not None
        assert is_alive(child.pid, started)
        child.stdin.close()
        wait_until(lambda: not is_alive(child.pid, started), what="the process to end")
        assert start_time(child.pid) == started, "not reaped yet"
    finally:
        child.kill()
        child.wait()
