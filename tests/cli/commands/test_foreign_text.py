"""Text of nodes and machines cannot control the terminal of a command."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pydantic import BaseModel
from support.command_line import Dora
from support.dora import RunningDora, run_dora, running_dora
from support.fleets.daemons import real_fleet
from support.message_examples import ONE_DATAFLOW, examples
from support.waiting import wait_until
from support.workspace import Workspace

from dora_cli.coordinator.client import Client
from dora_config.protocol.envelope import PROTOCOL_VERSION, Message, Request

A = TypeVar("A", bound=Message)
HOSTILE = "text\x1b[2J\x1b]0;owned\x07\x9b1A\u202e\udc9b\rgone"
SHOWN = r"text\u001b[2J\u001b]0;owned\u0007\u009b1A\u202e\udc9b\rgone"
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]")
UUID = "01a20e4b-f5a3-4858-99fe-d510d04b9561"
VALUES: Mapping[str, Any] = {
    **ONE_DATAFLOW,
    r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$": UUID,
    r"^[0-9a-f]{64}$": "ab" * 32,
    r"^([A-Za-z0-9_-][A-Za-z0-9_.-]{0,127})?$": "workspace",
    r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,240}\.mcap$": "robot-0.mcap",
    "DataflowSpec.name": "name",
    "Rollout.then": "25%",
    "ProgramVersion.protocol": PROTOCOL_VERSION,
}
COMMANDS = [
    *("list", "list -f json", "list -q", "status", "clean", "stop text", "restart text", "why"),
    *("why -f json", "top --once", "top --once -f table", "node list", "node list -f json"),
    *("node info text", "node list -q"),
    *("cluster status", "cluster history", "recording list"),
]


def hostile(value: Any) -> Any:
    """Return a value with all its free texts replaced, whatever its models allow."""
    match value:
        case "text":
            return HOSTILE
        case BaseModel():
            changed = {name: hostile(one) for name, one in value.__dict__.items()}
            return value.model_construct(**changed)
        case dict():
            return {hostile(key): hostile(one) for key, one in value.items()}
        case tuple() | list():
            return type(value)(hostile(one) for one in value)
    return value


@pytest.fixture
def hostile_coordinator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of a coordinator whose texts contain escape sequences."""

    def request(_client: Client, request: Request[A], *_: object, **__: object) -> Any:
        return hostile(examples(request.answer_type(), VALUES)[-1])

    monkeypatch.setattr(Client, "connect", lambda _client: None)
    monkeypatch.setattr(Client, "request", request)
    monkeypatch.setattr(Client, "follow", request)


@pytest.mark.usefixtures("hostile_coordinator")
@pytest.mark.parametrize("line", COMMANDS)
def test_answers_of_a_hostile_coordinator(dora: Dora, line: str) -> None:
    printed = dora(*line.split())
    shown = printed.out + printed.err
    assert CONTROL.search(shown) is None
    assert "unexpected error" not in shown
    if not line.startswith("clean"):
        assert r"\u001b[2J" in shown


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
