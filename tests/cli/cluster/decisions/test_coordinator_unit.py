"""The unit of a coordinator: what it starts, where, and what is read from one that is there."""

from __future__ import annotations

from dora_cli.cluster.coordinator.local import arguments
from dora_cli.cluster.decisions.coordinator_unit import (
    coordinator_service_name,
    render_coordinator_unit,
    unit_address,
    unit_program,
    unit_version,
)
from dora_config.cluster.models import Cluster, Coordinator


def cluster(addr: str = "10.0.0.1", port: int = 6013) -> Cluster:
    return Cluster(coordinator=Coordinator(addr=addr, port=port), machines=())


def unit(user: str | None = "op", program: str = "/opt/a b/100%/$x/python") -> str:
    return render_coordinator_unit(
        cluster(),
        [program, "-P", "-m", "dora_coordinator.command", *arguments(cluster())],
        version="0.2.0",
        token="/etc/dora-coordinator/token",
        user=user,
        environment={"XDG_STATE_HOME": "/da ta/100%", "PYTHONPATH": "/p"},
    )


def test_the_services_of_two_ports_have_names_of_their_own() -> None:
    assert coordinator_service_name(cluster()) == "dora-coordinator"
    assert coordinator_service_name(cluster(port=7000)) == "dora-coordinator-7000"


def test_it_listens_at_its_address_and_at_loopback() -> None:
    assert arguments(cluster())[:4] == ["--interface", "127.0.0.1", "--interface", "10.0.0.1"]
    assert arguments(cluster("127.0.0.1")) == ["--interface", "127.0.0.1", "--port", "6013"]


def test_the_unit_of_the_machine() -> None:
    lines = unit().splitlines()
    for line in (
        "Description=Dora Coordinator (10.0.0.1:6013)",
        "After=network-online.target",
        "User=op",
        "Restart=on-failure",
        "StartLimitIntervalSec=0",
        'Environment="PYTHONPATH=/p"',
        'Environment="XDG_STATE_HOME=/da ta/100%%"',
        "LoadCredential=dora-token:/etc/dora-coordinator/token",
        "WantedBy=multi-user.target",
    ):
        assert line in lines


def test_the_unit_of_a_user() -> None:
    text = unit(user=None)
    assert "WantedBy=default.target\n" in text
    assert "User=" not in text
    assert "network-online" not in text


def test_what_was_written_is_read_back() -> None:
    assert unit_version(unit()) == "0.2.0"
    assert unit_address(unit()) == "10.0.0.1:6013"
    assert unit_program(unit()) == "/opt/a b/100%/$x/python"
    assert unit_program(unit(program="/usr/bin/python3")) == "/usr/bin/python3"
    assert (unit_version(""), unit_address(""), unit_program("")) == ("", "", "")
