"""The program that holds the lock of a machine, without SSH."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
from support.fleets.held_lock import INFO, held_lock
from support.requirements import require_root
from support.waiting import wait_until

from dora_cli.remote_program import lock
from dora_cli.remote_program.lock import InputEnded, LeasedInput, acquire
from dora_cli.remote_program.protocol import VERSION, Problem, decode_reply

NAME = f"dora-test-lock-{os.getpid()}"


@pytest.fixture
def descriptors() -> Iterator[Path]:
    """The open descriptors of a process that holds the lock ``NAME``."""
    with held_lock(NAME) as holder:
        yield Path(f"/proc/{holder}/fd")


def connected(held: ExitStack) -> socket.socket:
    link = held.enter_context(socket.socket(socket.AF_UNIX))
    link.connect(f"\0{NAME}")  # waits while the holder's queue is full
    link.settimeout(30)
    return link


def test_connections_of_ended_commands_are_closed(descriptors: Path) -> None:
    before = len(list(descriptors.iterdir()))
    for _ in range(5):
        with ExitStack() as held:
            assert decode_reply(connected(held).recv(4096))["key"] == INFO["key"]
    wait_until(lambda: len(list(descriptors.iterdir())) == before, what="closed connections")


def test_the_number_of_connections_is_limited(descriptors: Path) -> None:
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


class _EndingInput(LeasedInput):
    """Standard input that ends at the third wait."""

    waits: ClassVar[list[float | None]]

    def wait(self, *_: object, within: float | None = None) -> list[socket.socket]:
        self.waits.append(within)
        if len(self.waits) == 3:
            raise InputEnded
        return []


@pytest.mark.parametrize("listens", [False, True], ids=["does not listen", "does not accept"])
def test_holders_that_do_not_accept_are_tried_again_after_a_wait(
    listens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "LeasedInput", _EndingInput)
    monkeypatch.setattr(_EndingInput, "waits", [], raising=False)
    with ExitStack() as held:
        holder = held.enter_context(socket.socket(socket.AF_UNIX))
        holder.bind(f"\0{NAME}")
        if listens:
            holder.listen(0)
            connected(held)  # fills the queue
        acquire(NAME, {"key": "b"}, wait=True, lease=60.0)
    assert _EndingInput.waits == [lock.RETRY_INTERVAL] * 3


def test_other_errors_are_problems() -> None:
    with pytest.raises(Problem, match=r"the machine cannot be locked: .*too long"):
        acquire("x" * 200, {"key": "a"}, wait=True, lease=60.0)


REPLY = {"protocol": VERSION, "result": INFO | {"since": 1.0}}


@pytest.mark.parametrize(
    "answer",
    [
        b"\n",
        b"\xff\n",
        b"[" * 30_000 + b"\n",
        b"[]\n",
        b'{"protocol": 1}\n',
        json.dumps(REPLY | {"result": 5}).encode() + b"\n",
        json.dumps(REPLY | {"result": {}}).encode() + b"\n",
        json.dumps(REPLY | {"result": INFO | {"since": "x"}}).encode() + b"\n",
        json.dumps(REPLY | {"result": INFO | {"since": float("inf")}}).encode() + b"\n",
        b"x" * (lock.MAX_ANSWER + 4096),
    ],
)
def test_an_odd_answer_is_none(answer: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    def serve(holder: socket.socket) -> None:
        link, _ = holder.accept()
        with link:
            link.sendall(answer)
            link.recv(1)

    with (
        socket.socket(socket.AF_UNIX) as holder,
        ThreadPoolExecutor(1) as threads,
        standard_input(),
    ):
        holder.bind(f"\0{NAME}")
        holder.listen()
        served = threads.submit(serve, holder)
        acquire(NAME, {"key": "b"}, wait=False, lease=60.0)
        served.result()
    shown = decode_reply(capfd.readouterr().out)
    assert (shown["held"], shown["holder"]) == (False, None)


def test_the_lock_of_another_account_is_named_by_the_kernel() -> None:
    """Its own text is not read, and it is not waited for."""
    require_root()
    program = (
        "import os, socket, sys\n"
        "os.setuid(65534)\n"
        "holder = socket.socket(socket.AF_UNIX)\n"
        f"holder.bind('\\0{NAME}')\n"
        "holder.listen()\n"
        "print('bound', flush=True)\n"
        "sys.stdin.read()\n"
    )
    python = [sys.executable, "-I", "-c", program]
    with (
        subprocess.Popen(python, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder,
        standard_input(),
    ):
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"bound\n"
        with pytest.raises(Problem, match=rf'^process {holder.pid} of .* account .*, "nobody",'):
            acquire(NAME, {"key": "b"}, wait=True, lease=60.0)
        holder.stdin.close()


@contextmanager
def standard_input() -> Iterator[None]:
    """Open for the block, without data."""
    reading, writing = os.pipe()
    before = os.dup(0)
    os.dup2(reading, 0)
    try:
        yield
    finally:
        os.dup2(before, 0)
        for descriptor in (reading, writing, before):
            os.close(descriptor)
