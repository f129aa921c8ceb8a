"""The lock of a machine, with real processes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.cluster.local_machine import LocalConnection
from support.waiting import wait_until

from dora_cluster import remote_call
from dora_cluster.ownership import reservation
from dora_cluster.ownership.reservation import Answer, LockFailed, MachineLock


@pytest.fixture(autouse=True)
def short_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reservation, "SIGN_INTERVAL", 0.1)


@pytest.fixture
def connect() -> Iterator[Callable[[], LocalConnection]]:
    made: list[LocalConnection] = []

    def make() -> LocalConnection:
        made.append(LocalConnection("robot"))
        return made[-1]

    yield make
    for connection in made:
        connection.close()


def info(key: str) -> dict[str, Any]:
    return {"key": key, "operator": f"{key}@laptop", "command": "dora cluster up", "pid": 1}


def unexpected_wait(holder: Answer | None) -> None:
    raise AssertionError(holder)


class Waiter(threading.Thread):
    """Waits for the lock and records its holders."""

    def __init__(self, lock: MachineLock) -> None:
        super().__init__(daemon=True)
        self.lock = lock
        self.holders: list[Any] = []
        self.answer: Answer | None = None
        self.start()
        wait_until(lambda: self.holders, what="the name of the holder")

    def run(self) -> None:
        self.answer = self.lock.acquire(wait=True, on_wait=self.holders.append)


def test_second_command_gets_the_name_of_the_first(connect: Callable[[], LocalConnection]) -> None:
    first, second = MachineLock(connect(), info("alice")), MachineLock(connect(), info("bob"))
    assert first.acquire(wait=False, on_wait=unexpected_wait)["held"]
    answer = second.acquire(wait=False, on_wait=unexpected_wait)
    assert not answer["held"]
    assert answer["holder"]["operator"] == "alice@laptop"
    assert answer["holder"]["pid"] == 1
    assert answer["holder"]["since"] > 0
    first.release()
    third = MachineLock(connect(), info("bob"))
    assert third.acquire(wait=False, on_wait=unexpected_wait)["held"]
    third.release()


def test_two_entries_of_one_command_share_the_lock(connect: Callable[[], LocalConnection]) -> None:
    first, second = MachineLock(connect(), info("alice")), MachineLock(connect(), info("alice"))
    assert first.acquire(wait=False, on_wait=unexpected_wait)["held"]
    assert second.acquire(wait=True, on_wait=unexpected_wait)["shared"]
    second.release()
    third = MachineLock(connect(), info("bob"))
    assert not third.acquire(wait=False, on_wait=unexpected_wait)["held"]
    first.release()


@pytest.mark.parametrize("manner", ["release", "kill"])
def test_waiting_command_gets_the_lock(connect: Callable[[], LocalConnection], manner: str) -> None:
    connection = connect()
    lost = threading.Event()
    first = MachineLock(connection, info("alice"), lost.set)
    assert first.acquire(wait=False, on_wait=unexpected_wait)["held"]
    waiter = Waiter(MachineLock(connect(), info("bob")))
    assert waiter.holders[0]["operator"] == "alice@laptop"
    if manner == "release":
        first.release()
    else:
        connection.break_off()
    wait_until(lambda: waiter.answer, what="the lock")
    assert waiter.answer is not None
    assert waiter.answer["held"]
    if manner == "kill":
        wait_until(lost.is_set, what="the call of `lost`")
    assert lost.is_set() == (manner == "kill")
    waiter.lock.release()


def test_silent_holder_loses_the_lock(
    connect: Callable[[], LocalConnection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reservation, "SIGN_INTERVAL", 3600.0)
    connection = connect()
    connection.lease = 0.2
    first = MachineLock(connection, info("alice"))
    assert first.acquire(wait=False, on_wait=unexpected_wait)["held"]
    wait_until(lambda: connection.processes[0].poll() is not None, what="the end of the lease")
    second = MachineLock(connect(), info("bob"))
    assert second.acquire(wait=False, on_wait=unexpected_wait)["held"]
    first.release()
    second.release()


def test_holder_of_another_version_is_reported(connect: Callable[[], LocalConnection]) -> None:
    connection = connect()
    first = MachineLock(connection, info("alice"))
    assert first.acquire(wait=False, on_wait=unexpected_wait)["held"]
    [path] = connection.state.glob("dora/cluster-*.lock")
    path.write_text('{"protocol": 2, "result": {"key": "alice"}}\n')
    with pytest.raises(LockFailed, match=r"^robot: another version of dora .* protocol is 2"):
        MachineLock(connect(), info("bob")).acquire(wait=False, on_wait=unexpected_wait)
    first.release()


def test_machine_without_python(
    connect: Callable[[], LocalConnection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_call, "_FIND_PYTHON", "echo Python 3.9.2; exit 97")
    with pytest.raises(LockFailed, match=r"robot: dora needs Python 3\.11 .*found: Python 3\.9\.2"):
        MachineLock(connect(), info("alice")).acquire(wait=False, on_wait=unexpected_wait)
