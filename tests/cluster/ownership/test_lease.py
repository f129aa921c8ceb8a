"""The lease of a machine as a command holds it, with real records."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from support.cluster.local_machine import LocalConnection
from support.waiting import wait_until

from dora_cluster.connection import FinishedCommand
from dora_cluster.ownership import lease as module
from dora_cluster.ownership.lease import Lease, this_computer


@pytest.fixture(autouse=True)
def short_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEW_INTERVAL", 0.05)


def info(key: str, **changes: Any) -> dict[str, Any]:
    given = {"operator": f"{key}@laptop", "command": "dora cluster up", "pid": os.getpid()}
    return {"key": key, **given, "computer": this_computer(), **changes}


class Command:
    """A command with one lease."""

    def __init__(self, key: str, **changes: Any) -> None:
        self.connection = LocalConnection("robot")
        self.lost = threading.Event()
        self.lease = Lease(self.connection, info(key, **changes), self.lost.set)

    def take(self) -> Any:
        """Return the operator who has the lease instead."""
        holder = self.lease.take()["holder"]
        return None if holder is None else holder["operator"]


def test_second_command_gets_the_name_of_the_first() -> None:
    first, second = Command("alice"), Command("bob")
    assert first.take() is None
    holder = second.lease.take()["holder"]
    assert (holder["operator"], holder["pid"]) == ("alice@laptop", os.getpid())
    assert abs(holder["since"] - time.time()) < 60
    second.lease.end()
    assert Command("carol").take() == "alice@laptop"
    first.lease.end()
    third = Command("bob")
    assert third.take() is None
    third.lease.end()


def test_the_lease_is_renewed_until_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Command("alice")
    first.take()
    [path] = first.connection.state.glob("dora/cluster-*.lease")
    os.utime(path, (1, 1))
    wait_until(lambda: path.stat().st_mtime > 1, what="the next renewal")
    first.lease.end()
    assert not path.exists()
    assert not first.lost.is_set()


def test_a_command_that_was_silent_for_too_long_loses_the_machine() -> None:
    first, second = Command("alice"), Command("bob")
    first.take()
    [path] = first.connection.state.glob("dora/cluster-*.lease")
    path.write_text("")  # not touched in time, and then
    assert second.take() is None
    wait_until(first.lost.is_set, what="the call of `lost`")
    assert not second.lost.is_set()
    first.lease.end()
    assert Command("alice").take() == "bob@laptop"
    second.lease.end()


def test_a_renewal_during_the_end_is_not_a_loss() -> None:
    first = Command("alice")
    renewing, given_back = threading.Event(), threading.Event()
    real = first.connection.run

    def run(argv: Sequence[str], **options: Any) -> FinishedCommand:
        if "touch" in argv[2]:
            renewing.set()
            assert given_back.wait(30)
        return real(argv, **options)

    first.connection.run = run  # type: ignore[method-assign]
    first.take()
    assert renewing.wait(30)
    first.lease.end()
    given_back.set()
    thread = first.lease._thread
    assert thread is not None
    thread.join(30)
    assert not first.lost.is_set()


def test_a_broken_connection_loses_the_machine_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LEASE", 0.5)
    first = Command("alice")
    first.take()
    first.connection.is_cut.set()
    wait_until(first.lost.is_set, what="the call of `lost`")


def test_a_killed_command_of_this_computer_does_not_block() -> None:
    killed = Command("alice", pid=2**22 + 1)
    killed.take()
    second = Command("bob")
    assert second.take() is None
    wait_until(killed.lost.is_set, what="the call of `lost`")
    second.lease.end()
    elsewhere = Command("alice", pid=2**22 + 1, computer="another")
    elsewhere.take()
    assert Command("bob").take() == "alice@laptop"
    elsewhere.lease.end()
