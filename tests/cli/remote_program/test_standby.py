"""What a standby keeps, and which coordinator its daemon is pointed at."""

from __future__ import annotations

import json

import pytest

from dora_cli.remote_program import coordinator
from dora_cli.remote_program.paths import daemon_folder
from dora_cli.remote_program.protocol import Problem

HIGHEST = {"epoch": 2, "machine": "base", "address": "10.0.0.2:6013", "standbys": []}
OURS = {"authority": "ab", "highest": HIGHEST}


@pytest.fixture(autouse=True)
def folder(home: object) -> None:
    daemon_folder("base").mkdir(parents=True)


def test_survey_returns_no_secret() -> None:
    assert coordinator.survey("base") == {"authority": "", "epoch": 0, "machine": "", "copy": None}
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
    ("before", "followed"),
    [
        (None, True),
        ({**OURS, "highest": {**HIGHEST, "epoch": 1, "address": "old"}}, True),
        ({**OURS, "highest": {**HIGHEST, "machine": "alpha", "address": "other"}}, True),
        ({**OURS, "highest": {**HIGHEST, "machine": "rover", "address": "other"}}, False),
        ({**OURS, "highest": {**HIGHEST, "epoch": 3, "address": "newer"}}, False),
        ({"authority": "cd", "highest": {**HIGHEST, "epoch": 1}}, False),  # of another cluster
    ],
)
def test_only_a_higher_rank_is_followed(before: dict[str, object] | None, followed: bool) -> None:
    path = daemon_folder("base") / "coordinators.json"
    if before is not None:
        path.write_text(json.dumps(before))
    coordinator.follow("base", OURS)
    assert (json.loads(path.read_text()) == OURS) == followed
    coordinator.follow("absent", OURS)
    assert not daemon_folder("absent").exists()


def test_a_coordinator_that_cannot_start_is_reported() -> None:
    with pytest.raises(Problem, match="exit code 3"):
        coordinator.start(["sh", "-c", "exit 3"], "token")
    assert coordinator.end() == {"ended": False}
