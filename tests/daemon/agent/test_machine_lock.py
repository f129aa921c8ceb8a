"""The command that has locked a machine, as the daemon reads it from the real lock."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress

import pytest
from support.fleets.held_lock import held_lock
from support.waiting import wait_until

from dora_cli.cluster.ownership import reservation as holding
from dora_config.protocol.snapshot import MachineOperation
from dora_daemon.agent import sampler
from dora_daemon.agent.sampler import lock_holder

ANSWER = b'{"result": {"command": "dora cluster stop", "operator": "ada", "since": 7}}\n'


@pytest.fixture
def name() -> str:
    return f"dora-test-lock-{os.getpid()}"


def test_both_sides_use_the_same_name() -> None:
    assert sampler.LOCK_NAME == holding.NAME


def test_the_holder_until_it_ends(name: str) -> None:
    assert lock_holder(name) is None
    with held_lock(name):
        found = wait_until(lambda: lock_holder(name), what="the holder")
        assert found is not None
        assert abs(found.since - time.time()) < 300
        assert found == MachineOperation(
            command="dora cluster upgrade fleet.yml", operator="ada@desk", since=found.since
        )
    wait_until(lambda: lock_holder(name) is None, what="the end of the holder")


def answered(name: str, answer: bytes) -> MachineOperation | None:
    """Return what the daemon reads of a program that holds the name and sends ``answer``."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen()

        def serve() -> None:
            with listener.accept()[0] as link, suppress(OSError):
                link.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            return lock_holder(name)
        finally:
            thread.join()


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
        b"x" * (sampler.MAX_LOCK_LINE + 1),
    ],
)
def test_other_programs_with_this_name_are_ignored(name: str, line: bytes) -> None:
    assert answered(name, line) is None


def test_a_holder_that_does_not_answer_is_not_waited_for(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "LOCK_SECONDS", 0.05)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen()
        assert lock_holder(name) is None


@pytest.mark.parametrize(("user", "shown"), [(0, True), (5000, True), (4242, False)])
def test_only_root_and_the_own_account_are_shown(
    name: str, user: int, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "peer_credentials", lambda link: (1, user))
    monkeypatch.setattr(os, "geteuid", lambda: 5000)
    assert (answered(name, ANSWER) is not None) == shown
