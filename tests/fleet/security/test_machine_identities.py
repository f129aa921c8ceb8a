"""What the holder of the token can do in the name of another machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cluster.clusters import cluster_file, daemons, dataflows, ended_cluster
from support.cluster.hosts import WORKSTATION, Hosts
from support.dora import DORA, run_dora
from support.waiting import wait_until

from dora_config.access import find_token

pytestmark = pytest.mark.integration


@pytest.fixture
def cluster(hosts: Hosts, workstation: Path, tmp_path: Path) -> Iterator[Path]:
    path = cluster_file(hosts, tmp_path)
    with ended_cluster(path):
        yield path


def test_the_holder_of_the_token_cannot_register_as_a_machine(hosts: Hosts, cluster: Path) -> None:
    run_dora("cluster", "up", cluster, timeout=90).succeeded()
    token = find_token()
    assert token is not None
    wait_until(lambda: {*daemons()} == {"robot", "gpu"}, what="the daemons")
    hosts["robot"].power_off()
    try:
        wait_until(lambda: {*daemons()} == {"gpu"}, what="the end of robot", timeout=120)
        thief = (
            f'DORA_AUTH_TOKEN={token} XDG_STATE_HOME=/var/tmp/thief timeout 20 "{DORA}" daemon '
            f"--machine-id robot --coordinator-addr {WORKSTATION}"
        )
        done = hosts["gpu"].root("bash", "-c", thief, check=False, user="ubuntu", timeout=60)
        assert 'it has another key than machine "robot"' in done.stdout + done.stderr
        assert {*daemons()} == {"gpu"}
    finally:
        hosts["gpu"].root("rm", "-rf", "/var/tmp/thief")
        hosts["robot"].boot()
    assert dataflows() == []
