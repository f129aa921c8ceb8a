"""`dataflows` and `rollout`: in a cluster file, in a file of their own, and every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from dora_config.cluster.fleet import FleetDataflow, FleetMachines, Rollout
from dora_config.cluster.loader import load_cluster_of, load_fleet
from dora_config.errors import ConfigError

CLUSTER = """\
coordinator: {addr: 192.0.2.1}
machines: [{id: r1, host: h1}, {id: r2, host: h2}]
"""
FLEET = """\
dataflows:
  drive: {file: drive.yml, machines: [r1], env: {SPEED: 0.40}, params: {plan: {speed: 0.8}}}
  map: {file: map.yml, machines: {labels: {kind: rover}}, offline: wait}
  base: {file: base.yml}
rollout: {first: [r1], then: 25%, healthy: 30s, deadline: 5m}
"""


@pytest.mark.parametrize("machines", [CLUSTER, ""], ids=["cluster file", "own file"])
def test_both_kinds_of_files(tmp_path: Path, machines: str) -> None:
    path = tmp_path / "fleet.yml"
    path.write_text(machines + FLEET)
    loaded = load_fleet(path)
    assert loaded.dataflows == {
        "drive": FleetDataflow(
            file="drive.yml",
            machines=FleetMachines(ids=("r1",)),
            env={"SPEED": "0.40"},
            params={"plan": {"speed": 0.8}},
        ),
        "map": FleetDataflow(
            file="map.yml", machines=FleetMachines(labels={"kind": "rover"}), offline="wait"
        ),
        "base": FleetDataflow(file="base.yml"),
    }
    assert loaded.rollout == Rollout(
        first=("r1",), then="25%", healthy=30.0, deadline=300.0, on_failure="rollback"
    )
    assert loaded.location("map") == f"{path}:{3 + machines.count(chr(10))}"


def test_without_a_rollout_all_machines_change_at_once(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yml"
    path.write_text("dataflows: {a: {file: a.yml}}")
    rollout = load_fleet(path).rollout
    assert (rollout.batch_size(7), rollout.healthy, rollout.on_failure) == (7, 0.0, "pause")


@pytest.mark.parametrize(("then", "size"), [(2, 2), ("25%", 2), ("1%", 1), ("100%", 7), (9, 9)])
def test_size_of_batches(then: int | str, size: int) -> None:
    assert Rollout(then=then).batch_size(7) == size


def test_batches_begin_with_the_first_machines() -> None:
    rollout = Rollout(first=("r3", "gone"), then=2)
    assert rollout.batches(["r1", "r2", "r3", "r4"]) == [["r3"], ["r1", "r2"], ["r4"]]
    assert Rollout().batches(["r2", "r1"]) == [["r2", "r1"]]
    assert Rollout().batches([]) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("dataflows: {a: {}}", "1:13: dataflows a: field `file` is required"),
        ("dataflows: {a@b: {file: f}}", "1:13: dataflows a@b: invalid name 'a@b'"),
        (
            "dataflows: {a: {file: f, machines: {}}}",
            "1:26: expected a list of machine ids, or `labels: {KEY: VALUE}`",
        ),
        (
            "dataflows: {a: {file: f, machines: []}}",
            "1:26: dataflows a machines ids: expected at least one machine",
        ),
        (
            "dataflows: {a: {file: f, offline: no}}",
            "1:35: dataflows a offline: expected one of run, wait",
        ),
        (
            "dataflows: {}\nrollout: {then: 200%}",
            "2:17: rollout then: expected a number of machines or a share such as 25%",
        ),
        (
            "dataflows: {}\nrollout: {healthy: 5m, deadline: 10s}",
            "2:24: `deadline` (10 s) must be longer than `healthy` (300 s)",
        ),
        ("dataflows: {}\nrollout: {max_failed: 0}", "2:23: rollout max_failed: "),
        ("dataflows: {}\nrollout: {healthy: soon}", "2:20: rollout healthy: 'soon' is not a"),
        (
            CLUSTER + "dataflows: {a: {file: f, machines: [r3]}}\nrollout: {first: [r4]}",
            '3:37: no machine "r3"; machines of this file: r1, r2',
        ),
        (CLUSTER, "expected `dataflows`, what the machines are to run"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "fleet.yml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_fleet(path)
    shown = [str(one).removeprefix(f"{path}:") for one in caught.value.errors]
    assert any(problem in one for one in shown), shown


def test_machines_of_a_file_without_a_cluster_are_those_of_the_coordinator(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yml"
    path.write_text(
        "dataflows:\n"
        "  drive: {file: a.yml, machines: [r1, r7]}\n"
        "  map: {file: b.yml, machines: {ids: [r8]}}\n"
        "rollout: {first: [r9]}\n"
    )
    loaded = load_fleet(path)
    loaded.require_known(["r1", "r7", "r8", "r9"])
    with pytest.raises(ConfigError) as error:
        loaded.require_known(["r1", "r2"])
    known = "machines of the coordinator: r1, r2"
    assert [str(one).removeprefix(f"{path}:") for one in error.value.problems] == [
        f'2:39: no machine "r7"; {known}',
        f'3:39: no machine "r8"; {known}',
        f'4:19: no machine "r9"; {known}',
    ]


def test_the_cluster_of_either_file(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yml"
    path.write_text(FLEET)
    assert load_cluster_of(path) is None
    path.write_text(CLUSTER)
    cluster = load_cluster_of(path)
    assert cluster is not None
    assert len(cluster.machines) == 2
    path.write_text("")
    with pytest.raises(ConfigError, match="the file is empty: expected `dataflows`"):
        load_fleet(path)
