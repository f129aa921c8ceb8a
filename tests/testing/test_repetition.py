"""Equal outputs in each run: beside busy loops, and with races."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pytest
from support.workspace import Workspace

from dora_testing import Flow, from_function

RELAY = """
    from dora import Node
    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            node.send_output("out", event["value"])
"""


def chain(workspace: Workspace, length: int, **options: Any) -> list[dict[str, Any]]:
    """Return a source `n0` and relays `n1` and so on, each of which reads the one before."""
    workspace.node("relay", RELAY)
    nodes: list[dict[str, Any]] = [{"id": "n0", "path": "none.py", "outputs": ["out"]}]
    for number in range(1, length + 1):
        source = {"source": f"n{number - 1}/out", **options}
        inputs = {"in": source}
        nodes.append({"id": f"n{number}", "path": "relay.py", "inputs": inputs, "outputs": ["out"]})
    return nodes


def numbers(every: float) -> Any:
    return from_function(lambda t: pa.array([t]), every=every)


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def dropping(workspace: Workspace) -> Flow:
    nodes = chain(workspace, 3, queue_size=2)
    path = workspace.dataflow({"nodes": nodes})
    cost = {"n1": "3ms", "n2": "7ms", "n3": "11ms"}
    return Flow(path, replace={"n0": numbers(0.002)}, cost=cost, latency={"n1/out": "1ms"})


def repeat(flow: Flow, times: int) -> None:
    with busy_loops(4):
        first = flow.run("200ms")
        assert first.dropped("n1/in") > 0
        assert first.dropped("n2/in") > 0
        assert {flow.run("200ms").fingerprint() for _ in range(times - 1)} <= {first.fingerprint()}


def test_outputs_and_drops_are_equal_beside_busy_loops(workspace: Workspace) -> None:
    repeat(dropping(workspace), 3)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_runs_are_equal(workspace: Workspace) -> None:
    repeat(dropping(workspace), 200)


def test_shuffle_finds_a_race(workspace: Workspace) -> None:
    """The node is wrong if the goal of a tick comes after its state."""
    workspace.node("relay", RELAY)
    workspace.node(
        "planner",
        """
        from dora import Node
        goal = None
        for event in Node():
            if event["type"] == "INPUT" and event["id"] == "goal":
                goal = event["value"]
            elif event["type"] == "INPUT":
                assert goal is not None, "no goal yet"
        """,
    )
    tick = {"tick": "dora/timer/millis/10"}
    nodes = [
        {"id": "goal", "path": "relay.py", "inputs": tick, "outputs": ["out"]},
        {"id": "state", "path": "relay.py", "inputs": tick, "outputs": ["out"]},
        {
            "id": "planner",
            "path": "planner.py",
            "inputs": {"goal": "goal/out", "state": "state/out"},
        },
    ]
    path = workspace.dataflow({"nodes": nodes})
    Flow(path).run("50ms")

    def fails(seed: int) -> bool:
        out = Flow(path, shuffle=seed).run("50ms", may_fail=["planner"])
        return any("no goal yet" in line for line in out.lines("planner"))

    seed = next(seed for seed in range(20) if fails(seed))
    assert fails(seed), "the seed reproduces it"


def eleven_nodes(workspace: Workspace) -> Flow:
    """Return as many nodes as OpenArm has: ten joints, which follow one policy, at 250 Hz."""
    workspace.node(
        "joint",
        """
        import math, time
        import pyarrow as pa
        from dora import Node
        node = Node()
        place = 0.0
        for event in node:
            if event["type"] == "INPUT" and event["id"] == "tick":
                place += 0.01 * math.sin(time.time())
                node.send_output("out", pa.array([place]), {"stamp": time.time_ns()})
            elif event["type"] == "INPUT":
                place += 0.1 * (event["value"][0].as_py() - place)
        """,
    )
    workspace.node(
        "policy",
        """
        import pyarrow as pa
        from dora import Node
        node = Node()
        places = {}
        for event in node:
            if event["type"] == "INPUT" and event["id"] == "tick":
                node.send_output("out", pa.array([sum(places.values()) / max(1, len(places))]))
            elif event["type"] == "INPUT":
                places[event["id"]] = event["value"][0].as_py()
        """,
    )
    tick = "dora/timer/hz/250"
    joints = [
        {
            "id": f"joint{number}",
            "path": "joint.py",
            "inputs": {"tick": tick, "goal": {"source": "policy/out", "queue_size": 1}},
            "outputs": ["out"],
        }
        for number in range(10)
    ]
    inputs = {
        f"in{number}": {"source": f"joint{number}/out", "queue_size": 1} for number in range(10)
    }
    policy = {
        "id": "policy",
        "path": "policy.py",
        "inputs": {"tick": tick, **inputs},
        "outputs": ["out"],
    }
    path = workspace.dataflow({"nodes": [*joints, policy]})
    return Flow(path, cost={"policy": 0.0002})


def test_eleven_nodes_at_250_hz_twice(workspace: Workspace) -> None:
    flow = eleven_nodes(workspace)
    first = flow.run("200ms")
    assert len(first["joint0/out"]) == 51
    assert flow.run("200ms").fingerprint() == first.fingerprint()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_eleven_nodes_for_ten_seconds_twice(workspace: Workspace) -> None:
    flow = eleven_nodes(workspace)
    first = flow.run("10s")
    assert len(first["joint0/out"]) == 2501
    assert flow.run("10s").fingerprint() == first.fingerprint()
