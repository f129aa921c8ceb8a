"""Random SIGKILL and SIGSTOP of nodes: the dataflow continues and leaks nothing."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest
from support.runner.runs import BackgroundRun, background, gone
from support.waiting import wait_until
from support.workspace import Workspace

from dora_config.protocol import runner as protocol

pytestmark = pytest.mark.integration

SOURCE = """
    import os, time
    from dora import Node
    node = Node()
    size = 64 * 1024
    number = 0
    while True:
        node.send_output("big", number.to_bytes(8, "little") * (size // 8))
        node.send_output("small", number.to_bytes(8, "little"))
        number += 1
        if node.try_recv() is not None:
            break
        time.sleep(0.001)
"""

RELAY = """
    from dora import Node
    node = Node()
    held = []
    for event in node:
        if event["type"] == "INPUT":
            data = event["value"].to_numpy()
            first = data[:8].tobytes()
            assert bytes(data) == first * (len(data) // 8), "torn message"
            held = [*held[-5:], event["value"]]
            node.send_output("out", event["value"])
"""

ROUNDS = 60


def node(name: str, path: str, **fields: object) -> dict[str, object]:
    return {"id": name, "path": path, "restart_policy": "always", **fields}


def dataflow() -> dict[str, object]:
    return {
        "nodes": [
            node("source", "source.py", outputs=["big", "small"]),
            node("a", "relay.py", inputs={"big": "source/big"}, outputs=["out"]),
            node(
                "b",
                "relay.py",
                inputs={
                    "small": {
                        "source": "source/small",
                        "queue_policy": "backpressure",
                        "queue_size": 4,
                    },
                    "big": {"source": "source/big", "queue_size": 1},
                },
                outputs=["out"],
            ),
            node("c", "relay.py", inputs={"a": "a/out", "b": "b/out"}, outputs=["out"]),
        ]
    }


def descriptors(run: BackgroundRun) -> int:
    return len(list(Path(f"/proc/{run.pid()}/fd").iterdir()))


def settled(run: BackgroundRun) -> list[protocol.EdgeStatus]:
    """Wait until every node runs and messages arrive on each edge; return the edges."""

    def flows() -> list[protocol.EdgeStatus] | None:
        if any(n.status != "Running" for n in run.status().nodes):
            return None
        edges: list[protocol.EdgeStatus] = list(run.request(protocol.GetStatistics()).edges)
        fresh = all(e.idle_seconds is not None and e.idle_seconds < 0.5 for e in edges)
        return edges if fresh else None

    found = wait_until(flows, what=lambda: f"data on all edges: {run.status()}")
    assert found is not None
    return found


def test_random_kills(workspace: Workspace) -> None:
    chance = random.Random(7)
    workspace.node("source", SOURCE)
    workspace.node("relay", RELAY)
    with background(workspace, dataflow()) as run:
        run.wait_for_phase("running")
        settled(run)
        before = descriptors(run)
        killed: set[int | None] = set()
        for _ in range(ROUNDS):
            victims = [n.pid for n in run.status().nodes if n.pid is not None]
            if not victims:
                continue
            victim = chance.choice(victims)
            try:
                if chance.random() < 0.3:
                    os.kill(victim, signal.SIGSTOP)
                    run.status()
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                continue
            killed.add(victim)
        wait_until(
            lambda: killed.isdisjoint(n.pid for n in run.status().nodes),
            what="the runner to notice the last kill",
        )
        settled(run)
        failures = [n.error for n in run.status().nodes if n.error]
        assert failures == []
        # segments of ended producers are closed once no queue refers to them
        wait_until(
            lambda: descriptors(run) <= before + 8,
            what=lambda: f"{before} descriptors: {descriptors(run)}",
        )
        for edge in settled(run):
            assert edge.sent >= edge.received + edge.dropped
        logs = (workspace.path / "out").rglob("log_*.jsonl")
        assert not any("torn message" in path.read_text() for path in logs)
        assert isinstance(run.request(protocol.StopAllNodes(grace=2.0)), protocol.Done)
        status = run.wait_for_phase("finished")
        assert status.state.result is not None
        assert status.state.result.ok, status.state.result.root_causes
        assert isinstance(run.request(protocol.AcknowledgeResult()), protocol.Done)
        gone(run.pid())
