"""Two daemons, robot and station, with a dataflow over a link between them."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from support.fleets.daemons import RealFleet, counting
from support.runner.found_runners import list_runners
from support.waiting import wait_until
from support.workspace import Workspace

from dora_config.protocol.snapshot import LinkSummary
from dora_daemon.process_tree.runtime_dir import runtime_root

ROBOT: dict[str, object] = {"machine": "robot"}
STATION: dict[str, object] = {"machine": "station"}


def crossing(workspace: Workspace) -> Path:
    """A counter on the robot and a collector on the station, with backpressure."""
    flow = counting(workspace, counter=ROBOT, collector=STATION)
    content = json.loads(flow.read_text())
    content["nodes"][1]["inputs"]["count"]["queue_policy"] = "backpressure"
    return workspace.dataflow(content)


def runner_of(machine: str) -> int:
    """Return the process id of a machine's runner."""
    (found,) = [
        one for one in list_runners(runtime_root()) if one.alive and one.entry.machine_id == machine
    ]
    return found.entry.pid


def link_of(machine: str) -> int:
    """Return the process id of a machine's link."""
    children = Path(f"/proc/{runner_of(machine)}/task")
    for task in children.iterdir():
        for child in (task / "children").read_text().split():
            with suppress(OSError):
                if b"dora_daemon.link" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
    raise AssertionError(f"no link on {machine}")


def links(fleet: RealFleet) -> tuple[LinkSummary, ...]:
    return fleet.listed()[-1].links


def wait_until_connected(fleet: RealFleet, ends: int = 2) -> None:
    """Wait until so many ends of links report that messages pass both ways."""
    wait_until(
        lambda: [link.state for link in links(fleet)] == ["connected"] * ends,
        what=lambda: f"all links to be connected; they are {links(fleet)}",
    )


def complete(fleet: RealFleet, dataflow: str) -> None:
    """Require that every number has arrived once, in order."""
    got = fleet.messages(dataflow)
    assert got == list(range(len(got)))
