"""Commands that ask once: what they import, and their answers over the REST API."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from support.fleets.daemons import counting, real_fleet
from support.workspace import Workspace

PROGRAM = """
import sys
from dora_config.launcher import main
code = main(sys.argv[2:])
slow = set(sys.argv[1].split()) & set(sys.modules)
if slow:
    sys.exit(f"imported {sorted(slow)}")
sys.exit(code)
"""


LIBRARIES = (
    "pydantic websockets asyncio anyio rich psutil yaml multiprocessing fractions encodings.idna"
    " dora_daemon.process_tree.daemon_entry"
)
OF_STARTS = (
    "asyncio anyio rich psutil typer._adapters multiprocessing dora_config.history.entries"
    " dora_config.protocol.control dora_config.protocol.runner dora_config.protocol.links"
)
"""A start imports the models of dataflow files, and the few messages about it."""


def quick(*words: str, code: int = 0, without: str = LIBRARIES) -> str:
    """Run a command that must not import certain modules; return its standard output."""
    argv = [sys.executable, "-c", PROGRAM, without, *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "line",
    [
        *("--version", "--help", "list --help", "stop --help", "node list --help"),
        *("node --help", "topic --help", "param --help", "cluster --help"),
    ],
)
def test_help_is_quick(line: str) -> None:
    assert quick(*line.split())


@pytest.mark.parametrize(
    "line", ["list", "stop", "restart", "clean", "node list", "status", "cluster status"]
)
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
        table = quick("cluster", "status")
        assert table.startswith("DAEMON ID ")
        (machine,) = map(json.loads, quick("cluster", "status", "-f", "json").splitlines())
        assert table.splitlines()[1].split()[0] == machine["daemon"]
        assert (machine["labels"], machine["connected"]) == ({}, True)
        without = LIBRARIES.replace("fractions ", "")  # for the time
        shown = quick("node", "restart", "counter", "--grace", "1s", without=without)
        assert shown == 'node "counter" restarted\n'
        shown = quick("node", "stop", "collector", without=without)
        assert shown == 'node "collector" stopped\n'
        quick("node", "stop", "camera", code=1, without=without)
        new = quick("restart", "a").split(" -> ")[1].strip()
        assert quick("stop") == f"dataflow stopped: a ({new})\n"
        assert quick("stop") == "No dataflows are running.\n"
        assert quick("stop", "a", code=1) == ""
        for words in ((), ("--all",)):
            assert set(quick("list", "--quiet", *words).split()) == {uuid, new}
        assert set(quick("clean", "--quiet").split()) == {uuid, new}
