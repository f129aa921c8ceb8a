"""The unit of a coordinator: written, and read back."""

from __future__ import annotations

from dora_cluster.coordinator.local import coordinator_arguments
from dora_cluster.decisions.units import (
    ServiceFiles,
    coordinator_service_name,
    render_coordinator_unit,
    unit_address,
    unit_program,
    unit_version,
)
from dora_config.cluster.fleet import Rollout
from dora_config.cluster.models import Cluster, Coordinator, Machine


def cluster(addr: str = "10.0.0.1", port: int = 6013) -> Cluster:
    return Cluster(
        coordinator=Coordinator(addr=addr, port=port),
        machines=(Machine(id="robot", host="10.0.0.9"),),
    )


def unit(user: str | None = "op", program: str = "/opt/a b/100%/$x/python") -> str:
    return render_coordinator_unit(
        cluster(),
        [program, "-P", "-m", "dora_coordinator.command", *coordinator_arguments(cluster())],
        ServiceFiles("/etc/dora-coordinator/token", "/etc/dora-coordinator/env", user),
        version="0.2.0",
        environment={"XDG_STATE_HOME": "/da ta/100%", "PYTHONPATH": "/p"},
    )


def test_service_name_depends_on_the_port() -> None:
    assert coordinator_service_name(cluster()) == "dora-coordinator"
    assert coordinator_service_name(cluster(port=7000)) == "dora-coordinator-7000"


def test_coordinator_listens_at_its_address_and_at_loopback() -> None:
    assert coordinator_arguments(cluster())[:4] == [
        "--interface",
        "127.0.0.1",
        "--interface",
        "10.0.0.1",
    ]
    assert coordinator_arguments(cluster("127.0.0.1")) == [
        "--interface",
        "127.0.0.1",
        "--port",
        "6013",
    ]


def test_a_check_in_the_file_permits_commands() -> None:
    checked = coordinator_arguments(replace_rollout(cluster(), check="./check.sh"))
    assert checked[checked.index("--set") + 1] == "fleet_checks=1"
    assert "--set" not in coordinator_arguments(replace_rollout(cluster(), check=None))


def replace_rollout(file: Cluster, *, check: str | None) -> Cluster:
    return file.model_copy(update={"rollout": Rollout(check=check)})


def test_system_unit() -> None:
    lines = unit().splitlines()
    for line in (
        "Description=Dora Coordinator (10.0.0.1:6013)",
        "After=network-online.target",
        "User=op",
        "Restart=on-failure",
        "StartLimitIntervalSec=0",
        'Environment="PYTHONPATH=/p"',
        'Environment="XDG_STATE_HOME=/da ta/100%%"',
        "EnvironmentFile=-/etc/dora-coordinator/env",
        "LoadCredential=dora-token:/etc/dora-coordinator/token",
        "WantedBy=multi-user.target",
    ):
        assert line in lines


def test_user_unit() -> None:
    text = unit(user=None)
    assert "WantedBy=default.target\n" in text
    assert "User=" not in text
    assert "network-online" not in text


def test_unit_is_read_back() -> None:
    assert unit_version(unit()) == "0.2.0"
    assert unit_address(unit()) == "10.0.0.1:6013"
    assert unit_program(unit()) == "/opt/a b/100%/$x/python"
    assert unit_program(unit(program="/usr/bin/python3")) == "/usr/bin/python3"
    assert (unit_version(""), unit_address(""), unit_program("")) == ("", "", "")
