"""What a standby keeps, and which coordinator its daemon is pointed at."""

from __future__ import annotations

import json

import pytest

from dora_cli.remote_program import coordinator
from dora_cli.remote_program.paths import daemon_folder
from dora_cli.remote_program.protocol import Problem

CLAIM = {"cluster": "ab", "epoch": 2, "machine": "base", "address": "10.0.0.2:6013"}
OURS = {"authority": "ab", "claim": CLAIM, "standbys": []}


@pytest.fixture(autouse=True)
def folder(home: object) -> None:
    daemon_folder("base").mkdir(parents=True)


def test_survey_returns_no_secret() -> None:
    assert coordinator.survey("base") == {"claim": None, "copy": None}
    path = daemon_folder("base") / "coordinator-copy.json"
    head = {"authority": "ab", "epoch": 1, "machine": "", "number": 7}
    copy = {**head, "sealed": "secret"}
    path.write_text(json.dumps(copy))
    found = coordinator.survey("base")["copy"]
    assert found.pop("age") < 60
    assert found == head
    assert coordinator.read("base") == {"copy": copy}
    path.write_text("{")  # damaged
    assert coordinator.survey("base")["copy"] is None


@pytest.mark.parametrize(
    ("before", "written"),
    [
        (None, True),
        ({**OURS, "claim": {**CLAIM, "epoch": 1}}, True),
        (
            {**OURS, "claim": {**CLAIM, "epoch": 1 << 62}},
            True,
        ),  # not signed, or the daemon keeps it
        ({"authority": "cd", "claim": CLAIM}, False),  # of another cluster
    ],
)
def test_the_daemon_gets_the_claim_of_its_cluster(
    before: dict[str, object] | None, written: bool
) -> None:
    path = daemon_folder("base") / "coordinators.json"
    if before is not None:
        path.write_text(json.dumps(before))
        assert coordinator.survey("base")["claim"] == before["claim"]
    coordinator.follow("base", OURS)
    assert (json.loads(path.read_text()) == OURS) == written
    coordinator.follow("absent", OURS)
    assert not daemon_folder("absent").exists()


def test_a_coordinator_that_cannot_start_is_reported() -> None:
    with pytest.raises(Problem, match="exit code 3"):
        coordinator.start(["sh", "-c", "exit 3"], "token")
    assert coordinator.end() == {"ended": False}
