"""The program that holds the lock of a machine, without SSH."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.waiting import wait_until

from dora_cli.remote_program import __main__, lock
from dora_cli.remote_program.lock import Input, InputEnded, acquire
from dora_cli.remote_program.protocol import Problem, decode_reply, encode_request

NAME = f"dora-test-lock-{os.getpid()}"


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the lock ``NAME``."""
    words = [sys.executable, "-c", f"from {__main__.__name__} import main; main()"]
    given = {"name": NAME, "info": {"key": "a"}, "wait": False, "lease": 60.0}
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(encode_request("lock.acquire", given))
        process.stdin.flush()
        assert decode_reply(process.stdout.readline())["held"]
        yield process
        process.stdin.close()


def connected(held: ExitStack) -> socket.socket:
    link = held.enter_context(socket.socket(socket.AF_UNIX))
    link.connect(f"\0{NAME}")  # waits while the holder's queue is full
    link.settimeout(30)
    return link


def test_connections_of_ended_commands_are_closed(holder: subprocess.Popen[bytes]) -> None:
    descriptors = Path(f"/proc/{holder.pid}/fd")
    before = len(list(descriptors.iterdir()))
    for _ in range(5):
        with ExitStack() as held:
            assert decode_reply(connected(held).recv(4096))["key"] == "a"
    wait_until(lambda: len(list(descriptors.iterdir())) == before, what="closed connections")


def test_the_number_of_connections_is_limited(holder: subprocess.Popen[bytes]) -> None:
    descriptors = Path(f"/proc/{holder.pid}/fd")
    before = len(list(descriptors.iterdir()))
    with ExitStack() as held:
        links = [connected(held) for _ in range(lock.MAX_WAITING + 3)]
        for link in links[: lock.MAX_WAITING]:
            assert link.recv(4096)
        assert len(list(descriptors.iterdir())) == before + lock.MAX_WAITING
        for link in links[:3]:
            link.close()
        for link in links[lock.MAX_WAITING :]:
            assert link.recv(4096)


class _EndingInput(Input):
    """Standard input that ends at the first wait."""

    def wait(self, *_: object, within: float | None = None) -> list[socket.socket]:
        raise InputEnded


def test_holders_that_do_not_accept_are_tried_again_after_a_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lock, "Input", _EndingInput)
    with ExitStack() as held:
        holder = held.enter_context(socket.socket(socket.AF_UNIX))
        holder.bind(f"\0{NAME}")
        acquire(NAME, {"key": "b"}, wait=True, lease=60.0)  # does not listen
        holder.listen(0)
        connected(held)
        acquire(NAME, {"key": "b"}, wait=True, lease=60.0)  # does not accept


def test_other_errors_are_problems() -> None:
    with pytest.raises(Problem, match=r"the machine cannot be locked: .*too long"):
        acquire("x" * 200, {"key": "a"}, wait=True, lease=60.0)
