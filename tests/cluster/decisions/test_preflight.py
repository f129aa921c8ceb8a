"""Whether a machine meets the requirements of a daemon."""

from __future__ import annotations

from typing import Any

import pytest
from support.cluster.machine_facts import HEALTHY_MACHINE, machine_facts

from dora_cluster.decisions.preflight import (
    MachineFacts,
    NotReady,
    RunningDaemon,
    require_one_kind,
    require_ready,
    warnings,
)
from dora_config.cluster.models import Cluster, Coordinator, Machine

ROBOT = Machine(id="robot", host="h")


def test_healthy_machine_is_ready() -> None:
    found = machine_facts()
    require_ready(found, ROBOT, service=True)
    assert list(warnings(found)) == []
    assert found.clock == pytest.approx(0.0)


def test_all_unmet_requirements_are_listed() -> None:
    with pytest.raises(NotReady) as refused:
        require_ready(
            machine_facts(free=1 << 20, systemd=False),
            Machine(id="robot", host="h", dora="/opt/dora"),
            service=True,
        )
    text = str(refused.value)
    assert "its disk has 1 MiB free" in text
    assert "/opt/dora (`dora` in the cluster file) does not exist there" in text
    assert "systemd does not run there" in text
    require_ready(machine_facts(systemd=False), ROBOT)


def test_two_kinds_of_service_are_refused() -> None:
    require_one_kind(machine_facts(service=True), "dora-daemon-robot", user=False)
    require_one_kind(machine_facts(user_service=True), "dora-daemon-robot", user=True)
    with pytest.raises(NotReady, match="as a system service already; run this command without"):
        require_one_kind(machine_facts(service=True), "dora-daemon-robot", user=True)
    with pytest.raises(NotReady, match="as a user service already; run this command with --user"):
        require_one_kind(machine_facts(user_service=True), "dora-daemon-robot", user=False)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"free": 100 << 20}, "only 100 MiB of disk"),
        ({"memory": 100 << 20}, "only 100 MiB of memory"),
        ({"memory_files": False}, "does not support memory files"),
        ({"time": 1005.2}, "5.0 s ahead of this machine's"),
        ({"time": 990.2}, "10.0 s behind this machine's"),
    ],
)
def test_warning(changed: dict[str, Any], expected: str) -> None:
    (warning,) = warnings(machine_facts(**changed))
    assert expected in warning


def test_slow_network_causes_no_clock_warning() -> None:
    answer = HEALTHY_MACHINE | {"time": 1009.0}
    found = MachineFacts.from_answer(answer, sent=1000.0, received=1010.0)
    assert list(warnings(found)) == []


def test_daemon_serves_the_cluster_of_its_coordinator() -> None:
    cluster = Cluster(coordinator=Coordinator(addr="10.0.0.1"), machines=(ROBOT,))
    words = ["dora", "daemon", "--coordinator-addr", "10.0.0.1", "--coordinator-port", "6013"]
    assert RunningDaemon(pid=1, words=tuple(words)).serves(cluster)
    assert not RunningDaemon(pid=1, words=(*words[:-1], "6014")).serves(cluster)
    assert not RunningDaemon(pid=1, words=("dora", "daemon", "--coordinator-addr")).serves(cluster)
    found = machine_facts(daemon={"pid": 7, "words": words})
    assert found.daemon == RunningDaemon(pid=7, words=tuple(words))
