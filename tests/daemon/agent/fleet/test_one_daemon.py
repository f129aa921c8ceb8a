"""Starts, refused daemons and logs, with one daemon that runs on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.dora import run_dora, running_dora
from support.fleets.daemons import RealFleet, counting, real_fleet, wait_for_pids
from support.waiting import wait_until
from support.workspace import Workspace

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def home(shared_home: Path) -> Path:
    return shared_home


@pytest.fixture(scope="module")
def fleet(home: Path, shared_workspace: Workspace) -> Iterator[RealFleet]:
    """A daemon without a machine id; the tests have workspaces of their own."""
    assert home.is_dir()
    with real_fleet(shared_workspace, None) as made:
        yield made


def test_starts_on_one_machine(fleet: RealFleet, workspace: Workspace) -> None:
    """A missing file, an attached start, a failed one, a restart without the file."""
    flow = counting(workspace)
    missing = workspace.dataflow({"nodes": [{"id": "a", "path": "gone.py"}]}, "missing.yml")
    workspace.node("bad", "from dora import Node\nNode()\nraise SystemExit(3)")
    failing = workspace.dataflow({"nodes": [{"id": "bad", "path": "bad.py"}]}, "failing.yml")
    refused = fleet.dora("start", missing, "--detach", code=1).stderr
    assert f"{workspace.path}/gone.py does not exist" in refused
    assert f"(relative paths start at {workspace.path}: the folder of the dataflow" in refused

    words = ("start", flow, "--attach", "--coordinator-port", str(fleet.port))
    with running_dora(*words, cwd=workspace.path) as attached:
        attached.wait_for("got 10")
        attached.interrupt()
        result = attached.wait().succeeded()
    assert "event STOP" in result.stdout
    assert fleet.listed()[-1].status == "Finished"

    failed = fleet.dora("start", failing, "--attach", code=1)
    assert 'node "bad"' in failed.stderr
    assert fleet.listed()[-1].status == "Failed"

    old = fleet.start(flow, "--name", "a")
    flow.unlink()
    output = fleet.dora("restart", "a").stdout
    new = fleet.listed()[-1].uuid
    assert output == f"dataflow restarted: {old} -> {new}\n"
    assert [one.status for one in fleet.listed()][-2:] == ["Finished", "Running"]
    fleet.dora("stop", "a")


def test_programs_without_ports_do_not_delay_a_start(
    fleet: RealFleet, workspace: Workspace
) -> None:
    """One that never connects, which can be replaced, and one that fails at once."""
    nap = workspace.dataflow({"nodes": [{"id": "nap", "path": "sleep", "args": "1000"}]}, "nap.yml")
    fleet.start(nap, "--name", "nap")
    assert fleet.listed()[-1].status == "Running"
    (node,) = fleet.dora("node", "list", "--format", "json").stdout.splitlines()
    assert json.loads(node)["status"] == "Running"
    assert "must create" not in fleet.dora("why", "nap").stdout
    other = workspace.file("other.yml", "id: nap\npath: sleep\nargs: '2000'\n")
    replaced = fleet.dora("node", "replace", "nap", "--from-yaml", str(other)).stdout
    assert replaced.startswith('node "nap" replaced')

    def other_runs() -> bool:
        (again,) = fleet.dora("node", "list", "--format", "json").stdout.splitlines()
        found = json.loads(again)
        return bool(found["status"] == "Running" and found["pid"] != json.loads(node)["pid"])

    wait_until(other_runs, what="the other program to run")
    fleet.dora("stop", "nap")

    workspace.node("bad", "raise SystemExit(3)")
    bad = workspace.dataflow({"nodes": [{"id": "bad", "path": "bad.py"}]}, "bad.yml")
    refused = fleet.dora("start", str(bad), "--name", "bad", "--detach", code=1)
    assert "exited with code 3" in refused.stderr


def test_refused_daemons(fleet: RealFleet, workspace: Workspace) -> None:
    """A second daemon of the same name ends; one with a wrong token retries."""
    words = ("daemon", "--coordinator-port", str(fleet.port))
    refused = run_dora(*words, cwd=workspace.path).exited(1)
    assert "with another --machine-id" in refused.stderr
    wrong = {"DORA_AUTH_TOKEN": "wrong"}
    stranger_words = (*words, "--machine-id", "stranger")
    with running_dora(*stranger_words, cwd=workspace.path, env=wrong) as stranger:
        stranger.wait_for("has another token")
        assert stranger.process.poll() is None
        assert [one.machine_id for one in fleet.cluster().machines] == [None]
        stranger.interrupt()
        stranger.wait().succeeded()


def test_following_logs_continues_after_a_killed_runner(
    fleet: RealFleet, workspace: Workspace
) -> None:
    flow = counting(workspace)
    fleet.start(flow, "--name", "a")
    words = ("logs", "a", "--follow", "--coordinator-port", str(fleet.port))
    with running_dora(*words, cwd=workspace.path) as following:
        following.wait_for("got 5")
        os.kill(fleet.runner_pid(), signal.SIGKILL)
        wait_for_pids(workspace, 4)
        wait_until(lambda: following.stdout.count("got 5\n") == 2, what="lines of the new run")
        fleet.dora("stop", "a")
        result = following.wait().succeeded()
    assert result.stdout.endswith("event STOP\n")
