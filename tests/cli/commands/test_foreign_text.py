"""Text of nodes and machines cannot control the terminal of a command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from support.command_line import Dora
from support.dora import RunningDora, run_dora, running_dora
from support.fleets.daemons import real_fleet
from support.hostile_coordinator import CONTROL, check, hostile_coordinator
from support.waiting import wait_until
from support.workspace import Workspace

__all__ = ["hostile_coordinator"]

COMMANDS = [
    *("list", "list -f json", "list -q", "status", "clean", "stop text", "restart text", "why"),
    *("why -f json", "top --once", "top --once -f table", "node list", "node list -f json"),
    *("node info text", "node list -q"),
]


@pytest.mark.usefixtures("hostile_coordinator")
@pytest.mark.parametrize("line", COMMANDS)
def test_answers_of_a_hostile_coordinator(dora: Dora, line: str) -> None:
    check(dora(*line.split()), has_text=line != "clean")


NODE = """
    import sys
    from dora import Node

    hostile = "text\\x1b[2J\\x1b]0;owned\\x07\\x9b1A\\u202e"
    node = Node()
    node.report_waiting(f"waits {hostile}")
    node.hold_updates(f"holds {hostile}")
    print(f"prints {hostile}", flush=True)
    print("\\x1b[31mred", flush=True)
    sys.stdout.buffer.write(b"bytes \\x1b[1A\\xff\\x9b\\n")
    sys.stdout.flush()
    for event in node:
        if event["type"] == "INPUT":
            raise SystemExit(f"fails {hostile}")
"""
ESCAPED = r"text\u001b[2J\u001b]0;owned\u0007\u009b1A\u202e"


def _flow(workspace: Workspace, inputs: Mapping[str, str]) -> Path:
    workspace.node("hostile", NODE)
    node = {"id": "hostile", "path": "hostile.py", "inputs": inputs}
    return workspace.dataflow({"nodes": [node]})


@pytest.mark.integration
@pytest.mark.usefixtures("home")
def test_a_run_of_a_hostile_node(workspace: Workspace) -> None:
    flow = _flow(workspace, {"tick": "dora/timer/millis/100"})
    ran = run_dora("run", flow).exited(1)
    assert f"prints {ESCAPED}" in ran.stdout
    assert ": red\n" in ran.stdout
    assert r"bytes \u001b[1A" in ran.stdout
    assert f"fails {ESCAPED}" in ran.stderr
    folder = flow.parent
    logs = run_dora("logs", cwd=folder).succeeded()
    why = run_dora("why", "--local", cwd=folder).succeeded()
    assert f"prints {ESCAPED}" in logs.stdout
    assert f"fails {ESCAPED}" in why.stdout
    for done in (ran, logs, why):
        assert CONTROL.search(done.output) is None


@pytest.mark.integration
@pytest.mark.usefixtures("own_home")
def test_a_fleet_with_a_hostile_node(workspace: Workspace) -> None:
    with real_fleet(workspace, None) as fleet:
        fleet.start(_flow(workspace, {}))

        def reported() -> bool:
            return "holds updates" in fleet.dora("node", "list").output

        wait_until(reported, what="the report of the node")
        for line in ("list", "node list", "node info hostile", "logs", "why"):
            shown = fleet.dora(*line.split()).output
            assert ESCAPED in shown, line
            assert CONTROL.search(shown) is None
        port = ("--coordinator-port", str(fleet.port))
        with running_dora("node", "restart", "hostile", *port) as restart:
            restart.wait_for("holds updates")
            assert f"holds {ESCAPED}" in _stopped(restart)


def _stopped(command: RunningDora) -> str:
    command.kill()
    return command.stderr
