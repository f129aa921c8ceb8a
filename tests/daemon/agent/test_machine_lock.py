"""The command that has locked a machine, as the daemon reads it from the real lock."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from support.fleets.held_lock import held_lock
from support.waiting import wait_until

from dora_cli.cluster.ownership import reservation as holding
from dora_config.protocol.snapshot import MachineOperation
from dora_daemon.agent import sampler
from dora_daemon.agent.sampler import MachineLockReader


@pytest.fixture
def name() -> str:
    return f"dora-test-lock-{os.getpid()}"


@pytest.fixture
def reader(name: str) -> Iterator[MachineLockReader]:
    found = MachineLockReader(name)
    yield found
    found.close()


def test_both_sides_use_the_same_name() -> None:
    assert sampler.LOCK_NAME == holding.NAME


def test_a_free_lock_has_no_holder(reader: MachineLockReader) -> None:
    assert reader.holder() is None


def test_the_holder_until_it_ends(reader: MachineLockReader, name: str) -> None:
    with held_lock(name):
        wait_until(lambda: reader.holder() is not None, what="the holder")
        found = reader.holder()
        assert found is not None
        assert abs(found.since - time.time()) < 300
        assert found == MachineOperation(
            command="dora cluster upgrade fleet.yml", operator="ada@desk", since=found.since
        )
    wait_until(lambda: reader.holder() is None, what="the end of the holder")
    with held_lock(name):
        wait_until(lambda: reader.holder() is not None, what="the next holder")


@pytest.mark.parametrize(
    "line",
    [
        b"no json\n",
        b"[]\n",
        b"{}\n",
        b'{"result": {"command": 7, "operator": "", "since": 0}}\n',
        b'{"result": {"command": "", "operator": "", "since": "soon"}}\n',
        b"[" * 10_000 + b"\n",
        b"no end of the line",
    ],
)
def test_other_programs_with_this_name_are_ignored(
    reader: MachineLockReader, name: str, line: bytes
) -> None:
    with connected(reader, name) as link:
        link.sendall(line)
        assert reader.holder() is None


@contextmanager
def connected(reader: MachineLockReader, name: str) -> Iterator[socket.socket]:
    """The connection of the reader to a program that holds the name."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen()
        assert reader.holder() is None
        link, _ = listener.accept()
        with link:
            yield link


ANSWER = b'{"result": {"command": "dora cluster stop", "operator": "ada", "since": 7}}\n'


def test_a_holder_that_sends_more_than_its_line_is_disconnected(
    reader: MachineLockReader, name: str
) -> None:
    with connected(reader, name) as link:
        link.sendall(ANSWER)
        assert reader.holder() is not None
        assert reader.holder() is not None
        link.sendall(b"x")
        assert reader.holder() is None
        assert link.recv(1) == b""


def test_a_holder_that_writes_without_end_is_disconnected(
    reader: MachineLockReader, name: str
) -> None:
    with connected(reader, name) as link:
        link.sendall(b"x" * (sampler.MAX_LOCK_LINE + 1))
        assert reader.holder() is None
        with pytest.raises(BrokenPipeError):
            link.sendall(b"x")


@pytest.mark.parametrize(("user", "shown"), [(0, True), (5000, True), (4242, False)])
def test_only_root_and_the_own_account_are_shown(
    reader: MachineLockReader,
    name: str,
    user: int,
    shown: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sampler, "peer_credentials", lambda link: (1, user))
    monkeypatch.setattr(os, "geteuid", lambda: 5000)
    with connected(reader, name) as link:
        with suppress(BrokenPipeError):
            link.sendall(ANSWER)
        assert (reader.holder() is not None) == shown
