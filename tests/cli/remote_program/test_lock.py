"""The program that holds the lock of a machine, without SSH."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

import pytest
from support.fleets.held_lock import INFO, held_lock
from support.waiting import wait_until

from dora_cli.remote_program import lock
from dora_cli.remote_program.lock import InputEnded, LeasedInput, acquire
from dora_cli.remote_program.protocol import Problem, decode_reply

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
