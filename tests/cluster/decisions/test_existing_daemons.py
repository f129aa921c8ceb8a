"""Which daemons of a machine belong to this cluster, to its file, or to another cluster."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dora_cluster.decisions.existing_daemons import (
    ExistingDaemon,
    UserAccount,
    classify,
    describe_conflicts,
    settings_digest,
)
from dora_config.cluster.models import Cluster, Coordinator, Machine

ROBOT = Machine(id="robot", host="10.0.0.2", labels={"role": "edge"})
CLUSTER = Cluster(coordinator=Coordinator(addr="10.0.0.1"), machines=(ROBOT,))
ALICE = UserAccount("alice@laptop", "/srv/alice", "/srv/alice/cluster.yml", "now")
BOB = replace(ALICE, name="bob@laptop", home="/srv/bob", file="/srv/bob/fleet.yml")
NOW = 1_800_000_000.0


def owner(operator: UserAccount = ALICE, machine: Machine = ROBOT) -> dict[str, Any]:
    return operator.record(settings_digest(CLUSTER, machine)) | {"since": NOW - 7200}


def daemon(**changes: Any) -> ExistingDaemon:
    found = {
        "id": "robot",
        "name": "robot",
        "port": 53291,
        "coordinator": ["10.0.0.1", 6013],
        "user": "ubuntu",
        "mine": True,
        "pid": 12,
        "service": None,
        "user_service": False,
        "since": NOW - 60,
        "token": "now",
        "owner": owner(),
        "dataflows": ["my-app"],
    }
    return ExistingDaemon.model_validate(found | changes)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, None),
        ({"token": "before"}, None),
        ({"token": None}, None),
        ({"owner": None}, None),
        ({"owner": owner(BOB)}, None),
        ({"owner": owner(ALICE, ROBOT.model_copy(update={"labels": {}}))}, None),
        ({"owner": owner(BOB, ROBOT.model_copy(update={"labels": {}}))}, "other file"),
        ({"owner": owner(BOB, ROBOT.model_copy(update={"env": {"A": "b"}}))}, "other file"),
        ({"token": "foreign", "owner": None}, "other cluster"),
        ({"token": "foreign", "owner": owner(BOB)}, "other cluster"),
        ({"coordinator": ["10.0.0.1", 6014]}, "other cluster"),
        ({"coordinator": ["10.0.0.9", 6013]}, "other cluster"),
        ({"id": "arm", "coordinator": ["10.0.0.9", 6013]}, "other cluster"),
        ({"id": None, "owner": None, "coordinator": ["10.0.0.9", 6013]}, "other cluster"),
        ({"pid": None, "service": "s", "token": "foreign", "owner": None}, "other cluster"),
        ({"id": "arm", "owner": owner(BOB)}, "other operator"),
    ],
)
def test_kind_of_conflict(changes: dict[str, Any], kind: str | None) -> None:
    found = classify([daemon(**changes)], CLUSTER, [ROBOT], ALICE)
    assert [one.kind for one in found.conflicts] == ([] if kind is None else [kind])
    assert found.leftovers == ()


def test_account_without_token_does_not_own_a_daemon_with_token() -> None:
    stranger = replace(BOB, token=None)
    found = classify([daemon()], CLUSTER, [ROBOT], stranger)
    assert [one.kind for one in found.conflicts] == ["other cluster"]


def test_spelling_of_an_address_does_not_matter() -> None:
    cluster = CLUSTER.model_copy(update={"coordinator": Coordinator(addr="fd00::1")})
    one = daemon(coordinator=["fd00:0::0001", 6013])
    assert classify([one], cluster, [ROBOT], ALICE).conflicts == ()


def test_daemon_of_a_renamed_machine_is_a_leftover() -> None:
    renamed = daemon(id="arm")
    found = classify([renamed, daemon()], CLUSTER, [ROBOT], ALICE)
    assert (found.conflicts, found.leftovers) == ((), (renamed,))


def test_description_of_a_conflict() -> None:
    other = daemon(token="foreign", owner=owner(BOB), service="dora-daemon-robot")
    found = classify([other], CLUSTER, [ROBOT], ALICE)
    text = describe_conflicts("robot (10.0.0.2)", found.conflicts, CLUSTER, ALICE, now=NOW)
    lines = text.splitlines()
    assert lines[0] == "robot (10.0.0.2) is in use by another cluster:"
    assert lines[1].startswith(
        '  daemon "robot" (service dora-daemon-robot, process 12 of ubuntu), since '
    )
    assert lines[1].endswith("(1 min ago)")
    assert lines[2] == "    coordinator: 10.0.0.1:6013, with another token than this account's"
    assert lines[3].startswith("    set up by: bob@laptop from /srv/bob/fleet.yml, ")
    assert lines[3].endswith("(2 h ago)")
    assert lines[4:] == ["    dataflows: my-app"]
    assert "foreign" not in text
    moved = classify([daemon(coordinator=["10.0.0.1", 6014])], CLUSTER, [ROBOT], ALICE)
    text = describe_conflicts("robot (10.0.0.2)", moved.conflicts, CLUSTER, ALICE, now=NOW)
    assert "coordinator: 10.0.0.1:6014 (/srv/alice/cluster.yml has 10.0.0.1:6013)" in text
