"""A background process that is not ready in time is killed."""

from __future__ import annotations

import sys

import pytest

from dora_cli.coordinator import background


def test_a_process_that_is_not_ready_in_time_is_killed() -> None:
    argv = [sys.executable, "-c", "import signal; signal.pause()"]
    started = background.start("coordinator", argv)
    with pytest.raises(background.NotStarted, match=r"was not ready within 0.1 s"):
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
