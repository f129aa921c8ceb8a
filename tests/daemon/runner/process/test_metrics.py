"""Samples of processes that cannot be read."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import psutil
import pytest

from dora_daemon.runner.nodes.monitor import sample_process
from dora_daemon.runner.process.metrics import LoadMeter

UNREADABLE = [
    OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
    RuntimeError("file was empty"),
]


def raising(error: Exception) -> Callable[..., None]:
    def fail(*args: object, **options: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("error", UNREADABLE)
def test_a_process_that_cannot_be_read_has_no_load(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(psutil.Process, "io_counters", raising(error))
    load = LoadMeter(os.getpid()).sample(0.0)
    assert load is not None
    assert load.read_bytes == 0
    monkeypatch.setattr(psutil.Process, "children", raising(error))
    assert LoadMeter(os.getpid()).sample(0.0) is None
    monkeypatch.setattr(psutil.Process, "status", raising(error))
    assert sample_process(os.getpid()) is None
