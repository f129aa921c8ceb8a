"""Several commands that reserve several machines, with real locks."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.cluster.local_machine import LocalConnection
from support.waiting import wait_until

from dora_cluster.machines import remote_machine
from dora_cluster.ownership import lease, reservation
from dora_cluster.ownership.reservation import ClusterCommand, reserve
from dora_config.cluster.models import Cluster, Coordinator, Machine


def cluster(*names: str) -> Cluster:
    machines = tuple(Machine(id=name, host=name) for name in names)
    return Cluster(coordinator=Coordinator(addr="10.0.0.1"), machines=machines)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(reservation, "POLL_INTERVAL", 0.3)
    monkeypatch.setattr(lease, "RENEW_INTERVAL", 0.1)
    monkeypatch.setattr(remote_machine, "connect", lambda target: LocalConnection(target.host))
    monkeypatch.setattr(reservation, "survey", lambda connection: [])
    return tmp_path


def account_of_one_host(target: Machine) -> LocalConnection:
    connection = LocalConnection(target.host)
    connection.machine, connection.account = "host", ord(target.host)
    return connection


@pytest.mark.parametrize("entries", ["hosts", "accounts"])
def test_commands_with_another_order_of_machines_do_not_deadlock(
    home: Path, monkeypatch: pytest.MonkeyPatch, entries: str
) -> None:
    """Three commands over three machines; at most one runs at a time."""
    if entries == "accounts":
        monkeypatch.setattr(remote_machine, "connect", account_of_one_host)
    inside: list[str] = []
    counts: list[int] = []
    orders = ("abc", "cab", "bca")

    def work(order: str) -> None:
        with reserve(cluster(*order), ClusterCommand("up", home / order, surveys_all=True)):
            inside.append(order)
            counts.append(len(inside))
            inside.remove(order)

    threads = [threading.Thread(target=work, args=(order,), daemon=True) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert counts == [1] * 3


def test_lost_lease_closes_the_connection(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ClusterCommand("up", home / "cluster.yml", surveys_all=True)
    with reserve(cluster("a", "b"), command) as reserved, ExitStack() as opened:
        first, second = (
            opened.enter_context(reserved.connections.open(machine))
            for machine in reserved.cluster.machines
        )
        assert isinstance(first, LocalConnection)
        assert isinstance(second, LocalConnection)
        [record] = first.state.glob("dora/cluster-*.lease")
        record.write_text("of another command")
        wait_until(first.is_closed.is_set, what="the connection to be closed")
        assert not second.is_closed.is_set()
    assert "a (a): it is not reserved any more" in capsys.readouterr().err
