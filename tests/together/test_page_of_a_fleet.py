"""The page of a fleet that `dora cluster apply` changes, in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.browser.conditions import see
from support.browser.session import Ui, screenshot
from support.fleets.daemons import RealFleet
from support.fleets.watched_fleet import MACHINES

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("console")]


@pytest.fixture(scope="module", autouse=True)
def home(shared_home: Path) -> Path:
    return shared_home


GUARD = """
    from dora import Node

    for event in Node():
        pass
"""


def test_desired_state(ui: Ui, fleet: RealFleet) -> None:
    machine, file = MACHINES[0], fleet.workspace.file

    def apply(text: str) -> None:
        file("fleet.yml", text)
        fleet.dora("cluster", "apply", "fleet.yml", "--yes")

    file("guard.py", GUARD)
    file("guard.yml", "nodes: [{id: watch, path: guard.py, inputs: {t: dora/timer/secs/1}}]")
    guard = f"dataflows: {{guard: {{file: guard.yml, machines: [{machine}]%s}}}}"
    try:
        apply(guard % "")
        apply(guard % ", env: {SPEED: 2}")
        page = ui.open("rollout")
        see(page, "h2", "Generation 2")
        row = see(page, "tr", f"guard@{machine}")
        assert "current" in row.inner_text()
        fleet.dora("node", "hold", "watch", "arm is moving", "--dataflow", f"guard@{machine}")
        see(page, ".notes li", f"guard@{machine}: watch: arm is moving")
        screenshot(page, "ui-rollout")
        fleet.dora("node", "release", "watch", "--dataflow", f"guard@{machine}")
        page.get_by_role("button", name="Pause").click()
        see(page, ".rollout", "paused: by dora ui")
        page.get_by_role("button", name="Resume").click()
        see(page, ".rollout", "done")
        entry = see(page, "tr", "apply by").locator("xpath=..").locator("tr").last
        entry.get_by_role("button", name="Roll back").click()
        page.locator("dialog").get_by_role("button", name="Roll back").click()
        see(page, "h2", "Generation 3")
        see(page, "td", "rollback by dora ui")
    finally:
        apply("dataflows: {}")
