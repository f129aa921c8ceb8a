"""Samples of processes that cannot be read."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import psutil
import pytest

from dora_daemon.runner.control.monitor import sample_process
from dora_daemon.runner.process.metrics import Metrics

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
    pids = {"a": os.getpid()}
    monkeypatch.setattr(psutil.Process, "io_counters", raising(error))
    assert Metrics().sample(pids, 0.0)["a"].read_bytes == 0
    monkeypatch.setattr(psutil.Process, "children", raising(error))
    assert Metrics().sample(pids, 0.0) == {}
    monkeypatch.setattr(psutil.Process, "status", raising(error))
    assert sample_process(os.getpid()) is None
