"""Records of the clusters that this account has used."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from dora_cluster.ownership import known_clusters
from dora_config.access import Endpoint, state_dir
from dora_config.cluster.models import Cluster, Coordinator, Machine
from dora_config.protocol.snapshot import DaemonSummary

ROBOT = Machine(id="robot", host="h")
FILE = Path("cluster.yml")


def cluster(addr: str, port: int = 6013, *machines: Machine) -> Cluster:
    return Cluster(coordinator=Coordinator(addr=addr, port=port), machines=machines or (ROBOT,))


def test_cluster_is_found_by_the_address_of_its_coordinator() -> None:
    one, two, three = cluster("10.0.0.1"), cluster("10.0.0.1", 7), cluster("fd00::1")
    assert known_clusters.find(Endpoint("127.0.0.1", 6013)) is None
    for each in (one, two):
        known_clusters.keep(each, FILE)
    assert known_clusters.find(Endpoint("127.0.0.1", 6013)) == one
    assert known_clusters.find(Endpoint("10.0.0.1", 7)) == two
    assert known_clusters.find(Endpoint("10.0.0.9", 7)) is None
    known_clusters.keep(three, FILE)
    assert known_clusters.find(Endpoint("127.0.0.1", 6013)) is None  # ambiguous
    assert known_clusters.find(Endpoint("fd00::1", 6013)) == three
    known_clusters.forget(three)
    assert known_clusters.find(Endpoint("localhost", 6013)) == one


def test_loopback_finds_the_local_cluster_that_was_used_last() -> None:
    far, near, older = (cluster(addr) for addr in ("10.0.0.1", "127.0.0.2", "127.0.0.3"))
    for each in (far, older, near):
        known_clusters.keep(each, FILE)
    recorded = state_dir() / "clusters" / "127.0.0.3-6013.json"
    os.utime(recorded, (1, 1))
    assert known_clusters.find(Endpoint("127.0.0.1", 6013)) == near
    assert known_clusters.find(Endpoint("10.0.0.1", 6013)) == far


def test_machines_that_leave_the_file_are_kept_as_former_machines() -> None:
    arm = Machine(id="arm", host="h")
    known_clusters.keep(cluster("10.0.0.1", 6013, ROBOT, arm), FILE)
    now = cluster("10.0.0.1", 6013, ROBOT)
    known_clusters.keep(now, FILE)
    assert known_clusters.former_machines(now) == (arm,)
    assert known_clusters.file_of(now) == str(FILE.absolute())
    known_clusters.drop_former(now, arm)
    assert known_clusters.former_machines(now) == ()


def test_daemons_that_the_file_lacks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    known_clusters.keep(cluster("127.0.0.1"), FILE)
    daemons = [
        DaemonSummary(daemon=name, machine_id=machine, connected=connected, address="10.0.0.7:1")
        for name, machine, connected in (
            ("robot", "robot", True),
            ("arm", "arm", True),
            ("leg", "leg", False),
            ("default", None, True),
        )
    ]
    known_clusters.warn_of_unknown(Endpoint("127.0.0.1", 6013), daemons)
    file = FILE.absolute()
    assert capsys.readouterr().err == (
        f'warning: daemon "arm" runs at 10.0.0.7:1 and is not in {file}; remove it: dora cluster '
        f"remove {shlex.quote(str(file))} arm\n"
    )
    known_clusters.forget(cluster("127.0.0.1"))
    known_clusters.warn_of_unknown(Endpoint("127.0.0.1", 6013), daemons)
    assert capsys.readouterr().err == ""
