"""Problems of a machine and its daemon, and the commands that repair them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from support.cluster.machine_facts import MOUNT, machine_facts

from dora_cluster.decisions.preflight import find_problems, unresponsive_daemon
from dora_cluster.decisions.units import daemon_arguments
from dora_cluster.remote_program.existing_daemons import fingerprint
from dora_config.cluster.models import Cluster, Coordinator, Machine
from dora_config.protocol.control import ClusterReport
from dora_config.protocol.envelope import ProgramVersion
from dora_config.protocol.snapshot import DaemonSummary

ROBOT = Machine(id="robot", host="h")
CLUSTER = Cluster(coordinator=Coordinator(addr="10.0.0.1"), machines=(ROBOT,))
TOKEN = "f" * 64
DAEMON = {"pid": 812, "words": ["/opt/python", "/opt/dora", *daemon_arguments(CLUSTER, ROBOT)]}
CONNECTED = DaemonSummary(daemon="robot", machine_id="robot", release="1.2.0", heartbeat_age=1.0)


def problems(
    changed: Mapping[str, Any] | None = None,
    *,
    daemon: DaemonSummary | None = CONNECTED,
    facts: Mapping[str, Any] | None = None,
) -> list[str]:
    daemons = () if daemon is None else (daemon,)
    version = ProgramVersion(program="coordinator", release="1.2.0")
    report = ClusterReport(coordinator=version, machines=daemons, active_dataflows=0)
    known = {"daemon": DAEMON, "token": fingerprint(TOKEN)}
    found = machine_facts(**{**known, **(changed or {}), **(facts or {})})
    return list(find_problems(CLUSTER, ROBOT, found, report, TOKEN))


def test_healthy_machine_has_no_problems() -> None:
    assert problems() == []


LOST = CONNECTED.model_copy(update={"connected": False})
FOREIGN = {"pid": 812, "words": ["python", "dora", "daemon", "--coordinator-addr", "10.9.9.9"]}


@pytest.mark.parametrize(
    ("changed", "daemon", "facts", "problem", "remedy"),
    [
        ({"process_state": "T"}, CONNECTED, {}, "process 812) is stopped", "kill -CONT 812"),
        ({"process_state": "t"}, LOST, {}, "process 812) is stopped", "kill -CONT 812"),
        ({"token": "other"}, LOST, {}, "another token than this account", "dora cluster up"),
        (
            {"token": "other"}, LOST, {"service": True},
            "another token than this account", "dora cluster install",
        ),
        ({"last_line": "oh no"}, LOST, {}, 'its last line: "oh no"', "dora cluster up"),
        ({}, LOST, {"daemon": None}, "no daemon runs there", "dora cluster up"),
        ({}, None, {"daemon": None, "service": True}, "dora-daemon-robot does not run", "up"),
        ({}, None, {"daemon": FOREIGN}, "another coordinator, at 10.9.9.9", "--take-over"),
        ({"missing_program": "/opt/x"}, CONNECTED, {}, "/opt/x, was deleted", "dora cluster up"),
        (
            {"missing_unit_program": "/opt/x"}, CONNECTED, {"service": True},
            "of its service, /opt/x, does not exist", "dora cluster install",
        ),
        (
            {}, CONNECTED.model_copy(update={"release": "1.1.0"}), {},
            "is dora 1.1.0, the coordinator is dora 1.2.0", "dora cluster upgrade",
        ),
        (
            {}, CONNECTED.model_copy(update={"heartbeat_age": 12.0}), {},
            "hangs: its last heartbeat was 12 s ago", "kill -KILL 812",
        ),
        (
            {"state_mount": MOUNT | {"read_only": True, "mount": "/home"}}, CONNECTED, {},
            "/home/x is on a read-only file system", "mount -o remount,rw /home",
        ),
        (
            {"state_mount": MOUNT | {"writable": False}}, CONNECTED, {},
            "/home/x is not writable for ubuntu", "chown ubuntu /home/x",
        ),
        (
            {"program_mount": MOUNT | {"noexec": True}}, CONNECTED, {},
            "/home/x is mounted noexec", "mount -o remount,exec /",
        ),
    ],
)  # fmt: skip
def test_each_problem_has_a_remedy(
    changed: dict[str, Any],
    daemon: DaemonSummary | None,
    facts: dict[str, Any],
    problem: str,
    remedy: str,
) -> None:
    (text,) = problems(changed, daemon=daemon, facts=facts)
    assert problem in text
    assert remedy in text


def test_home_may_be_noexec_for_a_system_service() -> None:
    mount = {"program_mount": MOUNT | {"noexec": True}}
    assert problems(mount, facts={"service": True}) == []


def test_healthy_daemon_is_responsive() -> None:
    assert unresponsive_daemon(machine_facts(daemon=DAEMON), CONNECTED) is None
    assert unresponsive_daemon(machine_facts(daemon=None), None) is None
