"""What facts about a machine mean."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dora_cli.cluster.decisions.preflight import Facts, NotReady, Running, require_ready, warnings
from dora_cli.cluster.ownership import known_clusters as remembered
from dora_config.access import Endpoint, state_dir
from dora_config.cluster.models import Cluster, Coordinator, Machine

ANSWER: dict[str, Any] = {
    "python": "3.11.2",
    "machine": "x86_64",
    "system": "Linux",
    "user": "ubuntu",
    "uid": 1000,
    "home": "/home/ubuntu",
    "state": "/home/ubuntu/.local/state/dora",
    "time": 1000.2,
    "free": 10 << 30,
    "memory": 4 << 30,
    "memory_files": True,
    "systemd": True,
    "address": "10.0.0.2",
    "daemon": None,
    "environment": None,
    "service": False,
    "user_service": False,
    "dora": None,
}
ROBOT = Machine(id="robot", host="h")


def facts(**changed: Any) -> Facts:
    return Facts.read(ANSWER | changed, asked=1000.0, answered=1000.4)


def test_a_good_machine() -> None:
    found = facts()
    require_ready(found, ROBOT, service=True)
    assert list(warnings(found)) == []
    assert found.clock == pytest.approx(0.0)


def test_everything_that_is_missing_at_once() -> None:
    with pytest.raises(NotReady) as refused:
        require_ready(
            facts(free=1 << 20, systemd=False),
            Machine(id="robot", host="h", dora="/opt/dora"),
            service=True,
        )
    text = str(refused.value)
    assert "its disk has 1 MiB free" in text
    assert "/opt/dora (`dora` in the cluster file) is not there" in text
    assert "systemd does not run there" in text
    require_ready(facts(systemd=False), ROBOT)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"free": 100 << 20}, "only 100 MiB of disk"),
        ({"memory": 100 << 20}, "only 100 MiB of memory"),
        ({"memory_files": False}, "no memory files"),
        ({"time": 1005.2}, "5.0 s ahead of this machine's"),
        ({"time": 990.2}, "10.0 s behind this machine's"),
    ],
)
def test_what_may_go_wrong_later(changed: dict[str, Any], says: str) -> None:
    (warning,) = warnings(facts(**changed))
    assert says in warning


def test_a_clock_is_not_blamed_for_a_slow_network() -> None:
    found = Facts.read(ANSWER | {"time": 1009.0}, asked=1000.0, answered=1010.0)
    assert list(warnings(found)) == []


def test_whose_daemon_it_is() -> None:
    cluster = Cluster(coordinator=Coordinator(addr="10.0.0.1"), machines=(ROBOT,))
    words = ["dora", "daemon", "--coordinator-addr", "10.0.0.1", "--coordinator-port", "6013"]
    assert Running(1, tuple(words)).serves(cluster)
    assert not Running(1, (*words[:-1], "6014")).serves(cluster)
    assert not Running(1, ("dora", "daemon", "--coordinator-addr")).serves(cluster)
    found = facts(daemon={"pid": 7, "words": words})
    assert found.daemon == Running(7, tuple(words))


def test_a_cluster_is_remembered_by_its_coordinator() -> None:
    one = Cluster(coordinator=Coordinator(addr="10.0.0.1"), machines=(ROBOT,))
    two = Cluster(coordinator=Coordinator(addr="10.0.0.1", port=7), machines=(ROBOT,))
    three = Cluster(coordinator=Coordinator(addr="fd00::1"), machines=(ROBOT,))
    assert remembered.find(Endpoint("127.0.0.1", 6013)) is None
    for cluster in (one, two):
        remembered.keep(cluster, Path("cluster.yml"))
    assert remembered.find(Endpoint("127.0.0.1", 6013)) == one
    assert remembered.find(Endpoint("10.0.0.1", 7)) == two
    assert remembered.find(Endpoint("10.0.0.9", 7)) is None
    remembered.keep(three, Path("cluster.yml"))
    assert remembered.find(Endpoint("127.0.0.1", 6013)) is None  # either might be meant
    assert remembered.find(Endpoint("fd00::1", 6013)) == three
    remembered.forget(three)
    assert remembered.find(Endpoint("localhost", 6013)) == one


def test_loopback_means_the_coordinator_of_this_machine_whose_file_was_used_last() -> None:
    far, near, renamed = (
        Cluster(coordinator=Coordinator(addr=addr), machines=(ROBOT,))
        for addr in ("10.0.0.1", "127.0.0.2", "127.0.0.3")
    )
    for cluster in (far, renamed, near):
        remembered.keep(cluster, Path("cluster.yml"))
    recorded = state_dir() / "clusters" / "127.0.0.3-6013.json"
    os.utime(recorded, (1, 1))
    assert remembered.find(Endpoint("127.0.0.1", 6013)) == near
    assert remembered.find(Endpoint("10.0.0.1", 6013)) == far
