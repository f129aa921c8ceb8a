"""Processes in the background: one that does not get ready is not left running."""

from __future__ import annotations

import sys

import pytest

from dora_cli.coordinator import background


def test_one_that_does_not_get_ready_is_ended() -> None:
    words = [sys.executable, "-c", "import time; time.sleep(60)"]
    started = background.start("coordinator", words)
    with pytest.raises(background.NotStarted, match=r"did not get ready within 0.1 s"):
        started.wait_until(lambda: False, within=0.1)
    assert started.process.returncode is not None


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError])
def test_one_that_is_not_waited_for_any_more_is_ended(kind: type[BaseException]) -> None:
    def ready() -> bool:
        raise kind

    words = [sys.executable, "-c", "import time; time.sleep(60)"]
    started = background.start("coordinator", words)
    try:
        with pytest.raises(kind):
            started.wait_until(ready, within=10)
        assert started.process.returncode is not None
    finally:
        started.end()
