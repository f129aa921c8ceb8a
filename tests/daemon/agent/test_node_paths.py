"""Directories of nodes: the folder of the dataflow file where it exists, else one of the daemon."""

from __future__ import annotations

from pathlib import Path

from support.simulation.fleet_simulation import dataflow

from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedDeploy, ResolvedNode
from dora_config.protocol.dataflow import Origin
from dora_config.protocol.runner import NodeLocation
from dora_daemon.agent.node_paths import Machine, explain, has_folder, log_dirs, make_plan
from dora_daemon.agent.records import PartRecord


def origin_of(folder: Path) -> Origin:
    found = folder.stat()
    return Origin(boot_id="boot", directory=str(folder), device=found.st_dev, inode=found.st_ino)


def record(origin: Origin, *nodes: ResolvedNode, **more: object) -> PartRecord:
    spec = dataflow().model_copy(
        update={
            "resolved": ResolvedDataflow(nodes=nodes),
            "origin": origin,
            "workspace": "flow-12345678",
            **more,
        }
    )
    return PartRecord(dataflow_id="d", attempt=1, spec=spec)


NODE = ResolvedNode(id="n", path="n.py")


def test_the_folder_of_the_file_is_used_where_it_is_the_same_folder(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "daemon", "boot")
    origin = origin_of(tmp_path)
    assert has_folder(machine, origin)
    assert make_plan(record(origin, NODE), machine).working_dir == str(tmp_path)


def test_elsewhere_it_is_a_folder_of_the_daemon(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    origin = origin_of(here)
    other_boot = Machine(tmp_path / "daemon", "other boot")
    namesake = origin.model_copy(update={"inode": origin.inode + 1})
    gone = origin.model_copy(update={"directory": str(tmp_path / "gone")})
    unknown = origin.model_copy(update={"boot_id": ""})
    same_boot = Machine(tmp_path / "daemon", "boot")
    expected = str(tmp_path / "daemon" / "_work" / "flow-12345678")
    assert make_plan(record(origin, NODE), other_boot).working_dir == expected
    for stranger in (namesake, gone, unknown):
        assert make_plan(record(stranger, NODE), same_boot).working_dir == expected


def test_directory_is_reported_with_its_rule(tmp_path: Path) -> None:
    made = record(origin_of(tmp_path), NODE)
    here = explain(made, Machine(tmp_path / "daemon", "boot"))
    assert here.startswith(f"relative paths start at {tmp_path}: the folder of the dataflow file")
    there = explain(made, Machine(tmp_path / "daemon", "other"))
    assert f"start at {tmp_path}/daemon/_work/flow-12345678: a folder of the daemon" in there


def test_working_dir_is_joined_or_replaces(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "daemon", "boot")
    nodes = (
        NODE,
        ResolvedNode(id="in", path="x.py", deploy=ResolvedDeploy(working_dir="nodes")),
        ResolvedNode(id="out", path="y.py", deploy=ResolvedDeploy(working_dir="/opt/app")),
    )
    plan = make_plan(record(origin_of(tmp_path), *nodes), machine)
    assert log_dirs(plan) == {
        "n": f"{tmp_path}/out/d",
        "in": f"{tmp_path}/nodes/out/d",
        "out": "/opt/app/out/d",
    }


def test_a_local_build_is_used_only_on_its_machine(tmp_path: Path) -> None:
    places = {"n": NodeLocation(python="/envs/n/bin/python")}
    origin = origin_of(tmp_path)
    built = record(origin, NODE, places=places)
    assert make_plan(built, Machine(tmp_path, "boot")).places == places
    assert make_plan(built, Machine(tmp_path, "other")).places == {}


def test_whether_a_runner_has_all_nodes(tmp_path: Path) -> None:
    made = record(origin_of(tmp_path), NODE)
    machine = Machine(tmp_path, "boot")
    assert make_plan(made, machine).whole
    assert not make_plan(made.model_copy(update={"whole": False}), machine).whole
