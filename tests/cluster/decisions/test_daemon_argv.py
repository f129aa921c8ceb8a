"""The daemon's command line and its names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from cluster.decisions.clusters import MACHINES, cluster

from dora_cluster.decisions.units import daemon_arguments
from dora_config.cluster.models import Machine
from dora_daemon.agent.service import OFFLINE_AFTER
from dora_daemon.command import IGNORED, command


def parsed(words: Sequence[str]) -> dict[str, Any]:
    """Return the values of the options of `dora daemon`."""
    values: dict[str, Any] = command().make_context("dora daemon", list(words[1:])).params
    return values


@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_daemon_parses_its_command_line(machine: Machine) -> None:
    words = daemon_arguments(cluster(machine), machine)
    assert words[0] == "daemon"
    read = parsed(words)
    assert (read["machine_id"], read["coordinator_addr"], read["coordinator_port"]) == (
        machine.id,
        "10.0.0.1",
        7000,
    )
    assert read["labels"] == machine.labels
    assert read["local_listen_port"] == machine.daemon_port
    assert read["zenoh_listen"].host == machine.zenoh_addr
    assert not {*words} & {*IGNORED}


def test_the_absence_of_the_coordinator_is_passed_to_the_daemon() -> None:
    patient = cluster(MACHINES[0]).model_copy(update={"offline_after": 2.5})
    for chosen, expected in ((patient, 2.5), (cluster(MACHINES[0]), OFFLINE_AFTER)):
        words = daemon_arguments(chosen, chosen.machines[0])
        assert parsed(words)["offline_after"] == expected


def test_plain_links_are_passed_to_the_daemon() -> None:
    plain = cluster(MACHINES[0]).model_copy(update={"links": "plain"})
    for given, expected in ((plain, "plain"), (cluster(MACHINES[0]), "tls")):
        words = daemon_arguments(given, MACHINES[0])
        assert parsed(words)["links"] == expected


def test_two_daemons_of_a_machine_have_different_names() -> None:
    assert MACHINES[0].daemon == "robot"
    assert MACHINES[1].daemon == "r.1_a-b@6000"


def test_name_in_messages_has_the_ssh_target() -> None:
    assert MACHINES[0].label == "robot (10.0.0.2)"
    assert MACHINES[1].label == "r.1_a-b (u@h)"
