"""The page in a real browser while the cable of a machine is cut."""

from __future__ import annotations

import re

import pytest
from support.browser.conditions import PATIENCE_MS, node, see
from support.browser.session import chromium, opened, screenshot
from support.dora import running_dora
from support.fleets.cables import cable, require_networks
from support.fleets.daemons import real_fleet
from support.fleets.linked_fleet import crossing
from support.workspace import Workspace

pytestmark = pytest.mark.integration

SETTINGS = ("--interface", "0.0.0.0", "--set", "daemon_silence_limit=4s")


def test_a_machine_that_is_cut_off(workspace: Workspace) -> None:
    require_networks()
    with (
        cable("station", "robot") as wire,
        wire.at("station"),
        real_fleet(workspace, "station", settings=SETTINGS) as fleet,
        chromium() as browser,
    ):
        with wire.at("robot"):
            fleet.start_daemon("robot", "--coordinator-addr", wire.addresses["station"])
        uuid = fleet.start(crossing(workspace), "--name", "field")
        words = ("ui", "--no-browser", "--coordinator-port", str(fleet.port))
        with running_dora(*words, cwd=workspace.path) as process:
            ui = opened(process, browser)
            page = ui.open("dataflow", uuid)
            flowing = '[data-edge="counter>collector"] .rate'
            node(page, "counter")
            see(page, flowing, re.compile(r"[1-9]\d*/s"))
            wire.cut()
            see(page, ".group.lost", "robot")
            node(page, "counter", "Unknown")
            node(page, "collector")
            screenshot(page, "ui-cut-off")
            page.goto(f"{ui.address}#/")
            see(page, "tr.row-bad", "robot")
            see(page, ".notes li", re.compile("robot.*not reachable for"))
            see(page, ".figure.bad", "1 not reachable")
            screenshot(page, "ui-fleet-cut-off")
            wire.heal()
            page.locator("tr.row-bad").wait_for(state="detached", timeout=PATIENCE_MS)
            page.goto(f"{ui.address}#/dataflow/{uuid}")
            node(page, "counter")
            see(page, flowing, re.compile(r"[1-9]\d*/s"))
            assert ui.errors == []
            process.interrupt()
            process.wait().succeeded()
        fleet.dora("stop")
