"""Waiting for background processes, and when they are killed."""

from __future__ import annotations

import sys

import pytest

from dora_cli.coordinator import background
from dora_cli.coordinator.errors import CoordinatorBusy


def test_a_process_that_is_not_ready_in_time_is_killed() -> None:
    argv = [sys.executable, "-c", "import signal; signal.pause()"]
    started = background.start("coordinator", argv)
    with pytest.raises(background.BackgroundNotStarted, match=r"was not ready within 0.1 s"):
        started.wait_until(lambda: False, within=0.1)
    assert started.process.returncode is not None


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError])
def test_an_error_while_waiting_kills_the_process(kind: type[BaseException]) -> None:
    def ready() -> bool:
        raise kind

    argv = [sys.executable, "-c", "import signal; signal.pause()"]
    started = background.start("coordinator", argv)
    try:
        with pytest.raises(kind):
            started.wait_until(ready, within=10)
        assert started.process.returncode is not None
    finally:
        started.end()


def test_a_busy_coordinator_does_not_end_the_process() -> None:
    def ready() -> bool:
        raise CoordinatorBusy("the coordinator accepts no connection now")

    argv = [sys.executable, "-c", "import signal; signal.pause()"]
    started = background.start("daemon", argv)
    try:
        with pytest.raises(CoordinatorBusy, match=r"^the daemon was started; the coordinator acc"):
            started.wait_until(ready, within=0.0)
        assert started.process.poll() is None
    finally:
        started.end()


def test_a_coordinator_that_was_busy_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "BUSY_INTERVAL", 0.0)
    answers = iter([True, False])

    def ready() -> bool:
        if next(answers):
            raise CoordinatorBusy("the coordinator accepts no connection now")
        return True

    argv = [sys.executable, "-c", "import signal; signal.pause()"]
    started = background.start("daemon", argv)
    try:
        started.wait_until(ready, within=30.0)
        assert started.process.poll() is None
    finally:
        started.end()
