"""The lock of a machine, and several locks of one command, with real processes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.local_machine import LocalConnection
from support.waiting import wait_until

from dora_cli.cluster.ownership import machine_lock
from dora_cli.cluster.ownership import reservation as guard
from dora_cli.cluster.ownership.machine_lock import Answer, LockFailed, MachineLock
from dora_cli.cluster.ownership.reservation import Errand, guarded
from dora_config.cluster.models import Cluster, Coordinator, Machine


@pytest.fixture(autouse=True)
def quick_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_lock, "SIGN_INTERVAL", 0.1)


@pytest.fixture
def links() -> Iterator[Callable[[], LocalConnection]]:
    made: list[LocalConnection] = []

    def make() -> LocalConnection:
        made.append(LocalConnection("robot"))
        return made[-1]

    yield make
    for link in made:
        link.close()


def info(key: str) -> dict[str, Any]:
    return {"key": key, "operator": f"{key}@desk", "command": "dora cluster up", "pid": 1}


def no_waiting(holder: Answer | None) -> None:
    raise AssertionError(holder)


class Waiter(threading.Thread):
    """Waits for the lock; ``holders`` are those that were named."""

    def __init__(self, lock: MachineLock) -> None:
        super().__init__(daemon=True)
        self.lock = lock
        self.holders: list[Any] = []
        self.answer: Answer | None = None
        self.start()
        wait_until(lambda: self.holders, what="the name of the holder")

    def run(self) -> None:
        self.answer = self.lock.ask(wait=True, waiting=self.holders.append)


def test_the_second_learns_who_is_first(links: Callable[[], LocalConnection]) -> None:
    first, second = MachineLock(links(), info("alice")), MachineLock(links(), info("bob"))
    assert first.ask(wait=False, waiting=no_waiting)["held"]
    answer = second.ask(wait=False, waiting=no_waiting)
    assert not answer["held"]
    assert answer["holder"]["operator"] == "alice@desk"
    assert answer["holder"]["pid"] == 1
    assert answer["holder"]["since"] > 0
    first.release()
    third = MachineLock(links(), info("bob"))
    assert third.ask(wait=False, waiting=no_waiting)["held"]
    third.release()


def test_one_command_has_two_entries_for_a_machine(links: Callable[[], LocalConnection]) -> None:
    first, second = MachineLock(links(), info("alice")), MachineLock(links(), info("alice"))
    assert first.ask(wait=False, waiting=no_waiting)["held"]
    assert second.ask(wait=True, waiting=no_waiting)["shared"]
    second.release()
    third = MachineLock(links(), info("bob"))
    assert not third.ask(wait=False, waiting=no_waiting)["held"]
    first.release()


@pytest.mark.parametrize("manner", ["release", "kill"])
def test_a_waiter_is_next(links: Callable[[], LocalConnection], manner: str) -> None:
    link = links()
    lost = threading.Event()
    first = MachineLock(link, info("alice"), lost.set)
    assert first.ask(wait=False, waiting=no_waiting)["held"]
    waiter = Waiter(MachineLock(links(), info("bob")))
    assert waiter.holders[0]["operator"] == "alice@desk"
    if manner == "release":
        first.release()
    else:
        link.break_off()
    wait_until(lambda: waiter.answer, what="the lock")
    assert waiter.answer is not None
    assert waiter.answer["held"]
    if manner == "kill":
        wait_until(lost.is_set, what="the news that the lock is lost")
    assert lost.is_set() == (manner == "kill")
    waiter.lock.release()


def test_a_silent_holder_loses_the_lock(
    links: Callable[[], LocalConnection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_lock, "SIGN_INTERVAL", 3600.0)
    link = links()
    link.lease = 0.2
    first = MachineLock(link, info("alice"))
    assert first.ask(wait=False, waiting=no_waiting)["held"]
    wait_until(lambda: link.processes[0].poll() is not None, what="the end of the lease")
    second = MachineLock(links(), info("bob"))
    assert second.ask(wait=False, waiting=no_waiting)["held"]
    first.signal_end()
    second.signal_end()


def test_a_machine_without_python_is_an_error(
    links: Callable[[], LocalConnection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_lock, "_START", "echo Python 3.9.2; exit 97")
    with pytest.raises(LockFailed, match=r"robot: dora needs Python 3\.11 .*found: Python 3\.9\.2"):
        MachineLock(links(), info("alice")).ask(wait=False, waiting=no_waiting)


# ---------------------------------------------------------------------------------- several


def cluster(*names: str) -> Cluster:
    machines = tuple(Machine(id=name, host=name) for name in names)
    return Cluster(coordinator=Coordinator(addr="10.0.0.1"), machines=machines)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(guard, "connect", lambda target: LocalConnection(target.host))
    monkeypatch.setattr(guard, "survey", lambda link: [])
    return tmp_path


def test_commands_that_name_machines_in_another_order_do_not_block(home: Path) -> None:
    """Two rounds of three commands over three machines; at most one is ever inside."""
    inside: list[str] = []
    most: list[int] = []
    orders = ("abc", "cab", "bca")

    def work(order: str) -> None:
        for _ in range(2):
            with guarded(cluster(*order), Errand("up", home / order)):
                inside.append(order)
                most.append(len(inside))
                inside.remove(order)

    threads = [threading.Thread(target=work, args=(order,), daemon=True) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert len(most) == 6
    assert set(most) == {1}


def test_a_lost_lock_closes_the_connection(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with guarded(cluster("a", "b"), Errand("up", home / "cluster.yml")) as held:
        link = held.find(held.cluster.machines[0])
        assert isinstance(link, LocalConnection)
        link.break_off()
        wait_until(link.is_closed.is_set, what="the connection to be closed")
        other = held.find(held.cluster.machines[1])
        assert isinstance(other, LocalConnection)
        assert not other.is_closed.is_set()
    assert "a (a): its lock was lost" in capsys.readouterr().err
