"""Files of daemons and runners are removed from disk: each node still runs exactly once."""

from __future__ import annotations

import os
from pathlib import Path
from shutil import rmtree

import pytest
from support.fleets.daemons import RealFleet, counting, is_running, pids, real_fleet
from support.fleets.linked_fleet import crossing
from support.runner.found_runners import list_runners
from support.waiting import wait_until
from support.workspace import Workspace

from dora_daemon.process_tree.runtime_dir import runtime_root

pytestmark = pytest.mark.integration


def runtime_directory() -> Path:
    (found,) = [one for one in list_runners(runtime_root()) if one.alive]
    return found.path


def state_directory() -> Path:
    return Path(os.environ["XDG_STATE_HOME"]) / "dora" / "daemon"


REMOVED = {"runtime directory": runtime_directory, "state directory": state_directory}


def wait_for_new_nodes(fleet: RealFleet, old: list[int]) -> None:
    """Wait until both nodes have new processes and the old ones have ended."""

    def once_each() -> bool:
        living = [pid for pid in pids(fleet.workspace) if is_running(pid)]
        return len(living) == 2 and not set(living) & set(old)

    wait_until(once_each, what=lambda: f"two new nodes; there were {old}")


@pytest.mark.parametrize("what", REMOVED)
def test_successor_without_records_does_not_start_nodes_twice(
    workspace: Workspace, what: str
) -> None:
    with real_fleet(workspace, "robot") as fleet:
        deploy: dict[str, object] = {"machine": "robot"}
        uuid = fleet.start(counting(workspace, counter=deploy, collector=deploy))
        fleet.wait_for_messages(uuid)
        old = pids(workspace)
        removed = REMOVED[what]()
        fleet.daemons["robot"].kill()
        rmtree(removed)
        fleet.start_daemon("robot")
        wait_for_new_nodes(fleet, old)
        fleet.wait_for_status("Running")
        fleet.dora("stop", uuid)
        wait_until(lambda: not any(map(is_running, pids(workspace))), what="nodes to end")


def test_nodes_whose_runtime_directory_is_removed_are_started_again(workspace: Workspace) -> None:
    """Without the directory they could not be adopted."""
    with real_fleet(workspace, "robot", settings=("--set", "heartbeat_interval=0.3")) as fleet:
        deploy: dict[str, object] = {"machine": "robot"}
        uuid = fleet.start(counting(workspace, counter=deploy, collector=deploy))
        fleet.wait_for_messages(uuid)
        old = pids(workspace)
        removed = runtime_directory()
        rmtree(removed)
        fleet.daemons["robot"].wait_for(
            f"{removed} was removed while the nodes of dataflow {uuid} ran: they are started again"
        )
        wait_for_new_nodes(fleet, old)
        fleet.wait_for_status("Running")
        fleet.dora("stop", uuid)


def test_removed_state_directory_is_created_again(workspace: Workspace) -> None:
    """The next daemon adopts the runners, and can start dataflows over several machines."""
    settings = ("--set", "heartbeat_interval=0.3")
    with real_fleet(workspace, "robot", "station", settings=settings) as fleet:
        flow = crossing(workspace)
        uuid = fleet.start(flow)
        fleet.wait_for_messages(uuid)
        old = pids(workspace)
        rmtree(state_directory().rename(workspace.path / "removed"))
        for machine in ("robot", "station"):
            certificate = state_directory() / machine / "credentials" / "cert.pem"
            wait_until(certificate.exists, what=f"{certificate} to be there again")
            assert certificate.parent.parent.stat().st_mode & 0o777 == 0o700
        fleet.daemons["robot"].kill()
        fleet.start_daemon("robot")
        fleet.wait_for_status("Running")
        fleet.wait_for_messages(uuid)
        assert pids(workspace) == old
        fleet.dora("stop", uuid)
        again = fleet.start(flow)
        fleet.wait_for_messages(again)
        fleet.dora("stop", again)
