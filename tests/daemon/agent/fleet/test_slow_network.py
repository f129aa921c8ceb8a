"""A start over a network that delays and loses packets."""

from __future__ import annotations

import pytest
from support.fleets.daemons import real_fleet
from support.fleets.linked_fleet import complete, crossing, links, wait_until_connected
from support.fleets.slow_cable import require_slow_cable, slow_cable
from support.waiting import wait_until
from support.workspace import Workspace

pytestmark = pytest.mark.integration


def test_a_start_waits_for_machines_with_a_slow_and_lossy_link(workspace: Workspace) -> None:
    """20 % of the packets are lost, and each takes 100 ms."""
    require_slow_cable()
    with (
        slow_cable("robot", "station", delay=0.1, loss=0.2) as wire,
        wire.at("robot"),
        real_fleet(workspace, settings=("--interface", "0.0.0.0")) as fleet,
    ):
        fleet.start_daemon("robot")
        with wire.at("station"):
            fleet.start_daemon("station", "--coordinator-addr", wire.addresses["robot"])
        started = fleet.dora("start", crossing(workspace), "--detach", timeout=150)
        uuid = started.stdout.split("dataflow started: ")[1].strip()
        wait_until_connected(fleet)
        fleet.wait_for_messages(uuid)
        complete(fleet, uuid)
        wait_until(
            lambda: [(link.rtt_us or 0) >= 200_000 for link in links(fleet)] == [True, True],
            what=lambda: f"round trips; the links are {links(fleet)}",
        )
        fleet.dora("stop", timeout=120)
