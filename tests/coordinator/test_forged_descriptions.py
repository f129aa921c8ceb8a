"""A robot that forges what it keeps about others connects first to an empty coordinator."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.claims import new_authority
from support.simulation.cluster_simulation import SimulatedCluster
from support.simulation.fleets import pipeline

from dora_coordinator.settings import Settings


@pytest.mark.parametrize("name", [None, "ghost"])
def test_nodes_of_other_machines_run_on(tmp_path: Path, name: str | None) -> None:
    settings = Settings(daemon_silence_limit=1e9)
    cluster = SimulatedCluster(settings, new_authority(), tmp_path, ("robot", "base"), ("app",))
    fleet, robot, base = cluster.present, cluster.daemons["robot"], cluster.daemons["base"]
    spec = pipeline(camera="robot", detector="base").model_copy(update={"name": "app"})
    fleet.start(spec)
    cluster.settle()
    (runner,) = base.runners
    cluster.forger.machine, cluster.forger.calls_them = "robot", name
    fleet.kill_coordinator()
    fleet.store = {}
    fleet.start_coordinator()
    for daemon in (robot, base):
        cluster.connect(daemon)
        cluster.settle()
    cluster.pass_time(30.0)
    assert base.runners == [runner]
    assert runner.phase == "running"
    assert fleet.listed() == [("Running", None)]
    assert fleet.coordinator is not None
    (dataflow,) = fleet.coordinator.registry.live()
    assert fleet.coordinator.registry.live_named("app") is dataflow
