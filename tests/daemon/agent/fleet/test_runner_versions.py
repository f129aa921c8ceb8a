"""Daemons that adopt runners of another version, as after an upgrade of the machine."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from support.fleets.daemons import RealFleet, counting, real_fleet
from support.fleets.linked_fleet import runner_of
from support.waiting import wait_until
from support.workspace import Workspace

import dora_config
from dora_config.protocol.links import LINK_VERSION
from dora_config.protocol.runner import RUNNER_PROTOCOL

pytestmark = pytest.mark.integration


def with_protocol(folder: Path, version: tuple[int, int]) -> dict[str, str]:
    """The environment of a dora whose protocol between daemon and runner has this version."""
    return raised(folder, "protocol/runner.py", "RUNNER_PROTOCOL", RUNNER_PROTOCOL, version)


def with_links(folder: Path, version: tuple[int, int]) -> dict[str, str]:
    """The environment of a dora whose protocol between links has this version."""
    return raised(folder, "protocol/links.py", "LINK_VERSION", LINK_VERSION, version)


def raised(
    folder: Path,
    module: str,
    name: str,
    before: tuple[int, int],
    after: tuple[int, int],
) -> dict[str, str]:
    copy = folder / dora_config.__name__
    shutil.copytree(Path(dora_config.__file__).parent, copy)
    text = (copy / module).read_text()
    changed = text.replace(f"{name}: Final = {before}", f"{name}: Final = {after}")
    assert changed != text
    (copy / module).write_text(changed)
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


def test_a_pair_of_machines_half_upgraded_and_rebooted(
    workspace: Workspace, tmp_path: Path
) -> None:
    """A link of the next minor version goes on; of a distant one, both are named."""
    (major, minor), place = LINK_VERSION, {"counter": "a", "collector": "b"}
    deploy: dict[str, dict[str, object]] = {node: {"machine": at} for node, at in place.items()}
    with real_fleet(workspace, "a", "b") as fleet:
        uuid = fleet.start(counting(workspace, **deploy), "--name", "patrol")
        fleet.wait_for_messages(uuid)

        def reboot(version: tuple[int, int]) -> None:
            fleet.daemons["b"].kill()
            os.kill(runner_of("b"), signal.SIGKILL)
            folder = tmp_path / str(version[0] * 10 + version[1])
            fleet.start_daemon("b", env=with_links(folder, version))

        reboot((major, minor + 1))
        fleet.wait_for_status("Running")
        fleet.wait_for_messages(uuid)
        reboot((major + 1, 0))
        found = f"(link protocol {major + 1}.0), this machine with"
        wait_until(
            lambda: found in " ".join(fleet.dora("why", "patrol").output.split()),
            what="both versions in `dora why`",
        )
        said = " ".join(fleet.dora("why", "patrol").output.split())
        assert f"({major}.{minor})" in said
        assert "then run `dora restart patrol`" in said
        refused = fleet.dora("restart", "patrol", code=1)
        assert "have the same version on both: `dora cluster upgrade`" in refused.stderr
        fleet.dora("stop", "patrol")
