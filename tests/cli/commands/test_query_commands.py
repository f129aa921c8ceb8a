"""Commands that ask once: what they import, and their answers over the REST API."""

from __future__ import annotations

import json

import pytest
from support.fleets.daemons import counting, real_fleet
from support.quick import OF_NODES, OF_STARTS, quick
from support.workspace import Workspace


@pytest.mark.parametrize(
    "line",
    [
        *("--version", "list --help", "stop --help", "node list --help"),
        *("node --help", "param --help"),
    ],
)
def test_help_is_quick(line: str) -> None:
    assert quick(*line.split())


@pytest.mark.parametrize("line", ["list", "stop", "restart", "clean", "node list", "status"])
def test_without_a_coordinator(line: str) -> None:
    quick(*line.split(), "--coordinator-port", "1", code=1)


@pytest.mark.integration
def test_commands_that_ask_once_are_quick(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with real_fleet(workspace, None) as fleet:
        # without an option, which keeps some commands from reading files of this machine
        monkeypatch.setenv("DORA_COORDINATOR_PORT", str(fleet.port))
        flow = str(counting(workspace))
        shown = quick("start", flow, "--detach", "--name", "a", without=OF_STARTS)
        uuid = shown.split("dataflow started: ")[1].strip()
        assert "counter" in quick("start", flow, "--dry-run", without=OF_STARTS)
        assert quick("up") == "coordinator: already running\ndaemon: already running\n"
        assert quick("list", "--quiet").split() == [uuid]
        (row,) = [json.loads(line) for line in quick("list", "-f", "JSON").splitlines()]
        assert (row["name"], row["status"]) == ("a", "Running")
        nodes = [json.loads(line) for line in quick("node", "list", "-f", "json").splitlines()]
        assert sorted(node["node"] for node in nodes) == ["collector", "counter"]
        assert "DATAFLOW" not in quick("node", "list", "-d", "a")
        assert "Daemons: 1 connected" in quick("status")
        shown = quick("node", "restart", "counter", "--grace", "1s", without=OF_NODES)
        assert shown == 'node "counter" restarted\n'
        shown = quick("node", "stop", "collector", without=OF_NODES)
        assert shown == 'node "collector" stopped\n'
        quick("node", "stop", "camera", code=1, without=OF_NODES)
        new = quick("restart", "a").split(" -> ")[1].strip()
        assert quick("stop") == f"dataflow stopped: a ({new})\n"
        assert quick("stop") == "No dataflows are running.\n"
        assert quick("stop", "a", code=1) == ""
        for words in ((), ("--all",)):
            assert set(quick("list", "--quiet", *words).split()) == {uuid, new}
        assert set(quick("clean", "--quiet").split()) == {uuid, new}
