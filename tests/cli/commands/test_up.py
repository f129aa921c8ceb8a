"""`dora up` and `dora down` in unexpected surroundings."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest
from support.dora import run_dora, running_dora
from support.fleets.coordinator import free_port
from support.fleets.daemons import real_fleet
from support.waiting import let_last
from support.workspace import Workspace

from dora_config.access import ensure_token, state_dir
from dora_daemon.agent.part_files import LOCK_TIMEOUT

pytestmark = pytest.mark.integration


def test_up_warns_of_another_coordinator_and_of_a_store_in_use(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with real_fleet(workspace, None) as fleet:
        monkeypatch.setenv("DORA_COORDINATOR_PORT", str(fleet.port))
        monkeypatch.setenv("DORA_COORDINATOR_ADDR", "192.0.2.7")
        done = run_dora("up", "--recreate-store", cwd=workspace.path).succeeded()
        assert done.stdout == "coordinator: already running\ndaemon: already running\n"
        assert "DORA_COORDINATOR_ADDR is 192.0.2.7" in done.stderr
        assert "the store is in use" in done.stderr


@pytest.mark.parametrize("has_token", [False, True])
def test_up_of_a_second_account_advises_another_port(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, has_token: bool
) -> None:
    with real_fleet(workspace, None) as fleet:
        other = tmp_path / "other"
        with monkeypatch.context() as second:
            second.setenv("XDG_CONFIG_HOME", str(other))
            if has_token:
                ensure_token(bytes(32))
            words = ("up", "--coordinator-port", str(fleet.port))
            refused = run_dora(*words, cwd=workspace.path).exited(1)
    port = fleet.port + 1
    assert "token" in refused.stderr
    assert f"`dora up --coordinator-port {port}`" in refused.stderr
    assert f"DORA_COORDINATOR_PORT={port} for other commands" in refused.stderr


def test_up_waits_for_a_daemon_that_reconnects_late(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with real_fleet(workspace, None) as fleet:
        monkeypatch.setenv("DORA_COORDINATOR_PORT", str(fleet.port))
        daemon = fleet.daemons["default"]
        daemon.send_signal(signal.SIGSTOP)
        try:
            fleet.coordinator.process.kill()
            fleet.restart_coordinator()
            with running_dora("up", cwd=workspace.path) as up:
                up.wait_for("coordinator: already running")
                let_last(LOCK_TIMEOUT + 1)  # a second daemon would have given up
                daemon.send_signal(signal.SIGCONT)
                done = up.wait().succeeded()
        finally:
            daemon.send_signal(signal.SIGCONT)
        assert done.stdout == "coordinator: already running\ndaemon: already running\n"


def test_down_without_a_coordinator_fails(workspace: Workspace) -> None:
    words = ("down", "--coordinator-port", str(free_port()))
    refused = run_dora(*words, cwd=workspace.path).exited(1)
    assert "cannot connect to the coordinator" in refused.stderr
    assert "`dora up`" in refused.stderr


def test_down_with_force_stops_dataflows(workspace: Workspace) -> None:
    workspace.node("forever", "from dora import Node\nfor _ in Node():\n    pass\n")
    node = {"id": "forever", "path": "forever.py", "inputs": {"tick": "dora/timer/secs/1"}}
    flow = workspace.dataflow({"nodes": [node]})
    with real_fleet(workspace, None) as fleet:
        fleet.start(flow, "--name", "a")
        refused = fleet.dora("down", code=1).stderr
        assert 'dataflows are still running: "a"' in refused
        assert "destroyed successfully" in fleet.dora("destroy", "--force").stdout
        fleet.daemons["default"].wait().succeeded()
        fleet.coordinator.process.wait().succeeded()


def test_down_reports_a_daemon_that_does_not_answer(workspace: Workspace) -> None:
    workspace.node("forever", "from dora import Node\nfor _ in Node():\n    pass\n")
    node = {"id": "forever", "path": "forever.py", "inputs": {"tick": "dora/timer/secs/1"}}
    node["deploy"] = {"machine": "robot"}
    flow = workspace.dataflow({"nodes": [node]})
    settings = ("--set", "daemon_silence_limit=8", "--set", "stop_margin=1")
    with real_fleet(workspace, "robot", settings=settings) as fleet:
        fleet.start(flow)
        fleet.daemons["robot"].send_signal(signal.SIGSTOP)
        try:
            shown = fleet.dora("down", "--force", code=1)
        finally:
            fleet.daemons["robot"].send_signal(signal.SIGCONT)
        assert 'these daemons did not answer: "robot"' in shown.stderr
        assert "destroyed successfully" not in shown.stdout
        fleet.coordinator.process.wait().succeeded()


def test_a_coordinator_that_cannot_start_leaves_no_daemon(workspace: Workspace) -> None:
    words = ("up", "--coordinator-port", str(free_port()))
    store = state_dir() / "coordinator" / "store.sqlite3"
    store.parent.mkdir(parents=True)
    store.write_text("not a store")
    ensure_token(bytes(32))  # with a token, a daemon starts at the same time
    refused = run_dora(*words, cwd=workspace.path).exited(1)
    assert refused.stdout == ""
    assert "the coordinator ended with code 1" in refused.stderr
    assert str(store) in refused.stderr
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(words[-1])))
        refused = run_dora(*words, cwd=workspace.path).exited(1)
    assert "cannot listen on 127.0.0.1" in refused.stderr
    assert "choose another --coordinator-port" in refused.stderr
