"""Daemons that adopt runners of another version, as after an upgrade of the machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.fleets.daemons import RealFleet, counting, real_fleet
from support.workspace import Workspace

import dora_config
from dora_config.protocol.runner import RUNNER_PROTOCOL

pytestmark = pytest.mark.integration


def with_protocol(folder: Path, version: tuple[int, int]) -> dict[str, str]:
    """The environment of a dora whose protocol between daemon and runner has this version."""
    copy = folder / "dora_config"
    shutil.copytree(Path(dora_config.__file__).parent, copy)
    module = copy / "protocol" / "runner.py"
    text = module.read_text()
    raised = text.replace(f"PROTOCOL: Final = {RUNNER_PROTOCOL}", f"PROTOCOL: Final = {version}")
    assert raised != text
    module.write_text(raised)
    return {"PYTHONPATH": str(folder)}


def upgraded(fleet: RealFleet, env: dict[str, str]) -> str:
    """Start a dataflow, replace the daemon, and return the dataflow."""
    uuid = fleet.start(counting(fleet.workspace), "--name", "patrol")
    fleet.wait_for_messages(uuid)
    fleet.daemons["default"].kill()
    fleet.start_daemon(None, env=env)
    return uuid


def test_a_runner_of_the_neighbouring_minor_version_is_adopted(
    workspace: Workspace, tmp_path: Path
) -> None:
    major, minor = RUNNER_PROTOCOL
    with real_fleet(workspace, None) as fleet:
        uuid = upgraded(fleet, with_protocol(tmp_path / "new", (major, minor + 1)))
        fleet.wait_for_status("Running")
        fleet.wait_for_messages(uuid)
        fleet.dora("node", "restart", "counter")
        fleet.dora("stop", "patrol")


def test_a_runner_that_the_daemon_cannot_control_is_named_and_replaced(
    workspace: Workspace, tmp_path: Path
) -> None:
    major, minor = RUNNER_PROTOCOL
    with real_fleet(workspace, None) as fleet:
        uuid = upgraded(fleet, with_protocol(tmp_path / "new", (major + 2, 0)))
        reason = fleet.wait_for_status("Degraded").reason or ""
        named = f"(runner protocol {major}.{minor}), which dora "
        for shown in (reason, fleet.dora("list").output, fleet.dora("why").output):
            text = " ".join(shown.split())
            assert "its nodes are run by dora " in text
            assert named in text
            assert f"({major + 2}.0) cannot control; run `dora restart patrol`" in text
        fleet.wait_for_messages(uuid)
        refused = fleet.dora("node", "restart", "counter", code=1)
        assert "cannot control" in refused.stderr
        assert fleet.daemons["default"].stderr.count("cannot control") == 1, "nothing is repeated"
        fleet.dora("restart", "patrol")
        fleet.wait_for_messages(fleet.wait_for_status("Running").uuid)
        assert fleet.listed()[-1].reason is None
        fleet.dora("stop", "patrol")
