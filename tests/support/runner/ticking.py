"""A dataflow of a ticker and a listener, and requests to its runner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from support.runner.runs import LISTENER, SLEEPER, BackgroundRun, background, gone
from support.workspace import Workspace

from dora_config.dataflow.loader import load_dataflow
from dora_config.dataflow.resolved import ResolvedNode
from dora_config.protocol import runner as protocol

TICKER = """
    from dora import Node
    node = Node()
    for number, event in enumerate(node):
        if event["type"] == "INPUT":
            node.send_output("count", bytes([number % 256]))
"""

TICKING: dict[str, Any] = {
    "nodes": [
        {
            "id": "ticker",
            "path": "ticker.py",
            "inputs": {"tick": "dora/timer/millis/10"},
            "outputs": ["count", "spare"],
        },
        {"id": "listener", "path": "listener.py", "inputs": {"count": "ticker/count"}},
    ]
}


def prepared(workspace: Workspace) -> dict[str, Any]:
    workspace.node("ticker", TICKER)
    workspace.node("listener", LISTENER)
    workspace.node("sleeper", SLEEPER)
    return TICKING


@contextmanager
def ticking_alone(workspace: Workspace, *, debug: bool) -> Iterator[BackgroundRun]:
    """Run a ticker without a listener."""
    workspace.node("ticker", TICKER)
    ticker = {**TICKING["nodes"][0], "outputs": ["count"]}
    content = {"nodes": [ticker], "debug": {"enable_debug_inspection": debug}}
    with background(workspace, content) as run:
        run.wait_for_phase("running")
        yield run


def resolved(workspace: Workspace, **node: Any) -> ResolvedNode:
    """Return a resolved node of the ticking dataflow."""
    content = {"nodes": [*(n for n in TICKING["nodes"] if n["id"] != node["id"]), node]}
    path = workspace.dataflow(content, "changed.yml")
    return load_dataflow(path).resolved.node(node["id"])


def done(run: BackgroundRun, request: protocol.RunnerRequest) -> None:
    reply = run.request(request)
    assert isinstance(reply, protocol.Done), reply


def refused(run: BackgroundRun, request: protocol.RunnerRequest) -> str:
    reply = run.request(request)
    assert isinstance(reply, protocol.Refusal), reply
    return reply.message


def finish(run: BackgroundRun) -> protocol.DataflowResult:
    """Stop the dataflow and acknowledge its result."""
    done(run, protocol.StopAllNodes(grace=0.5))
    status = run.wait_for_phase("finished")
    done(run, protocol.AcknowledgeResult())
    gone(run.pid())
    assert status.state.result is not None
    return status.state.result
