"""The systemd unit of a daemon."""

from __future__ import annotations

import shlex

import pytest
from cluster.decisions.clusters import MACHINES, cluster

from dora_cluster.decisions.units import (
    ServiceFiles,
    daemon_arguments,
    environment_file,
    render_unit,
)
from dora_config.cluster.models import Machine


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("user", ["ubuntu", None])
def test_unit_starts_the_same_daemon_as_up(machine: Machine, user: str | None) -> None:
    secrets = ("/etc/dora-daemon/x.token", "/etc/dora-daemon/x.env")
    files = ServiceFiles(*secrets, user)
    lines = render_unit(cluster(machine), machine, "/usr/local/bin/dora", files).splitlines()
    (start,) = [line for line in lines if line.startswith("ExecStart=")]
    words = shlex.split(start.removeprefix("ExecStart="))
    assert words == ["/usr/local/bin/dora", *daemon_arguments(cluster(machine), machine)]
    assert words[0].startswith("/")
    assert ("User=ubuntu" in lines) == (user is not None)
    assert f"WantedBy={'multi-user' if user else 'default'}.target" in lines
    nodes = f"dora-nodes-{machine.id}.service"
    (begin,) = [line for line in lines if line.startswith("ExecStartPre=")]
    assert begin.startswith("ExecStartPre=-+/bin/sh" if user else "ExecStartPre=-/bin/sh")
    script = shlex.split(begin)[-1].partition("||")[2]
    properties = [word for word in shlex.split(script) if word.startswith("--property=")]
    assert ("--property=User=ubuntu" in properties) == (user is not None)
    assert {"--property=Delegate=yes", "--property=OOMPolicy=continue"} <= set(properties)
    for line in (
        f"After={nodes}",
        f"Environment=DORA_RUNNERS_UNIT={'system' if user else 'user'}:{nodes}",
        "Restart=on-failure",
        "RestartSec=5",
        "KillMode=process",
        "RestartKillSignal=SIGUSR2",
        "OOMPolicy=continue",
        "Delegate=yes",
        "LimitNOFILE=65536",
        "RuntimeDirectoryPreserve=yes",
        "LoadCredential=dora-token:/etc/dora-daemon/x.token",
    ):
        assert line in lines


def test_environment_is_in_a_file_of_its_own() -> None:
    machine = Machine(id="x", host="h", env={"PLAIN": "a b", "HARD": 'q"\\$HOME`id`%'})
    text = environment_file(machine.env)
    assert text == 'HARD="q\\"\\\\\\$HOME\\`id\\`%"\nPLAIN="a b"\n'
    files = ServiceFiles("/etc/dora-daemon/x.token", "/etc/dora-daemon/x.env", "u")
    unit = render_unit(cluster(machine), machine, "/d", files)
    assert "EnvironmentFile=-/etc/dora-daemon/x.env\n" in unit
    assert "PLAIN" not in unit
