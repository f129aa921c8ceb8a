"""Scripts of LeRobot on one machine, the arm on another one, with a cable between them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.fleets.cables import Cable, cable, require_networks
from support.fleets.daemons import RealFleet, real_fleet
from support.waiting import let_last, wait_until
from support.workspace import Workspace
from with_lerobot.test_scripts import DEVICES, ENVIRONMENT, NAMES, datasets, flow, python, record

CUT = 5.0
"""Seconds; the node `check` reports pauses of more than 3 s."""

pytestmark = pytest.mark.timeout(300)


@dataclass
class Machines:
    """`robot` has the arm, `gpu` the script."""

    workspace: Workspace
    fleet: RealFleet
    wire: Cable
    uuid: str = ""

    def start(self, script: str) -> None:
        content = json.loads(flow(self.workspace, script).read_text())
        for node in content["nodes"]:
            node["deploy"] = {"machine": "gpu" if node["id"] == "script" else "robot"}
        self.uuid = self.fleet.start(self.workspace.dataflow(content))

    def log(self, node: str) -> str:
        return self.fleet.dora("logs", self.uuid, "--node", node).stdout

    def wait_for(self, text: str) -> str:
        """Wait for what the node beside the arm prints; return all that it has printed."""
        wait_until(
            lambda: text in self.log("check"), timeout=120, what=lambda: self.log("script")[-3000:]
        )
        return self.log("check")

    def stop(self) -> None:
        self.fleet.dora("stop", self.uuid)


@pytest.fixture(scope="module", autouse=True)
def home(shared_home: Path) -> Path:
    return shared_home


@pytest.fixture(scope="module")
def machines(home: Path, shared_workspace: Workspace) -> Iterator[Machines]:
    require_networks()
    assert home.is_dir()
    with (
        pytest.MonkeyPatch.context() as patch,
        cable("robot", "gpu") as wire,
        wire.at("robot"),
    ):
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        with real_fleet(shared_workspace, "robot", settings=("--interface", "0.0.0.0")) as fleet:
            with wire.at("gpu"):
                fleet.start_daemon("gpu", "--coordinator-addr", wire.addresses["robot"])
            yield Machines(shared_workspace, fleet, wire)


def test_teleoperate_goes_on_after_a_cut(machines: Machines) -> None:
    machines.start(" ".join(("lerobot-teleoperate", *DEVICES, "--fps=30")))
    machines.wait_for("30 actions")
    machines.wire.cut()
    let_last(CUT)
    machines.wire.heal()
    machines.wait_for("went on after")
    machines.stop()


def test_record(machines: Machines) -> None:
    machines.start(record("far", 1, 2))
    machines.wait_for("actions, median")
    machines.stop()
    (found,) = datasets(machines.workspace, "", "far")
    same = {"fps": 30, "robot": "dora", "names": NAMES, "picture": [3, 48, 64]}
    assert found.items() >= {**same, "episodes": 1}.items()
    assert found["frames"] > 20


def test_rollout(machines: Machines) -> None:
    python(machines.workspace, "make_policy.py", "policy")
    words = "--robot.type=dora --policy.path=policy --duration=5 --fps=30 --inference.type=sync"
    more = "--task=wave --device=cpu --return_to_initial_position=false"
    machines.start(f"lerobot-rollout {words} {more}")
    found = re.search(r"(\d+) actions, median", machines.wait_for("actions, median"))
    assert found is not None
    assert int(found[1]) > 20  # two chunks
    machines.stop()
