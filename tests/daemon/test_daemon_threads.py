"""Blocking calls that do not delay the end of the process."""

from __future__ import annotations

import subprocess
import sys
import threading

import anyio
import pytest

from dora_daemon.daemon_threads import run_in_daemon_thread

ENDED_WHILE_BLOCKED = """
import threading, anyio
from dora_daemon.daemon_threads import run_in_daemon_thread

async def main():
    with anyio.move_on_after(0.05):
        await run_in_daemon_thread(threading.Event().wait)
    print("cancelled")

anyio.run(main)
"""


def test_result_and_error_are_those_of_the_function() -> None:
    async def main() -> None:
        assert await run_in_daemon_thread(lambda: 7) == 7
        with pytest.raises(ValueError, match="of the thread"):
            await run_in_daemon_thread(fail)

    def fail() -> None:
        raise ValueError("of the thread")

    anyio.run(main)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), StopIteration(3)])
def test_what_a_task_cannot_raise_is_a_runtime_error(error: BaseException) -> None:
    def fail() -> None:
        raise error

    async def main() -> None:
        with anyio.fail_after(30), pytest.raises(RuntimeError) as raised:
            await run_in_daemon_thread(fail)
        assert str(raised.value) == repr(error)

    anyio.run(main)


def test_result_of_a_cancelled_call_is_dropped() -> None:
    go_on = threading.Event()
    ended = threading.Event()

    def call() -> None:
        go_on.wait(30)
        ended.set()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_in_daemon_thread, call)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        go_on.set()
        assert await run_in_daemon_thread(lambda: ended.wait(30))
        await run_in_daemon_thread(lambda: None)  # the loop goes on

    anyio.run(main)


def test_process_ends_while_a_cancelled_call_blocks() -> None:
    argv = [sys.executable, "-c", ENDED_WHILE_BLOCKED]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "cancelled\n"
