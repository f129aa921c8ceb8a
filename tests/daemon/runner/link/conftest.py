"""Dataflows of counters and writers on several machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.runner.linked import Linked
from support.workspace import Workspace

from dora_config.protocol import runner as protocol

COUNTER = """
    import sys, time
    import pyarrow as pa
    from dora import Node
    node = Node()
    pause = float(sys.argv[2]) if len(sys.argv) > 2 else 0
    for number in range(int(sys.argv[1])):
        node.send_output("number", pa.array([number]))
        if pause:
            time.sleep(pause)
"""
"""Sends 0, 1, 2 ... and ends."""

WRITER = """
    import json, sys, time
    from dora import Node
    out = open(sys.argv[1], "a")
    pause = float(sys.argv[2]) if len(sys.argv) > 2 else 0
    for event in Node():
        kind = event["type"]
        value = event["value"].to_pylist() if kind == "INPUT" else event.get("value")
        print(json.dumps([kind, event.get("id"), value]), file=out, flush=True)
        if pause:
            time.sleep(pause)
"""
"""Writes every event into a file."""


def flow_of(*nodes: dict[str, Any], **root: Any) -> dict[str, Any]:
    return {"nodes": list(nodes), **root}


def node(name: str, program: str, *args: object, **fields: Any) -> dict[str, Any]:
    return {"id": name, "path": f"{program}.py", "args": " ".join(map(str, args)), **fields}


def reads(source: str, *, size: int = 100, policy: str = "backpressure", **more: Any) -> Any:
    return {"source": source, "queue_size": size, "queue_policy": policy, **more}


def counting(out: Path, *counter: object, size: int = 100) -> dict[str, Any]:
    """A dataflow of ``a``, a counter with these arguments, and ``b``, which writes to ``out``."""
    return flow_of(
        node("a", "counter", *counter, outputs=["number"]),
        node("b", "writer", out, inputs={"number": reads("a/number", size=size)}),
    )


def events(path: Path) -> list[list[Any]]:
    """Return the complete lines of a writer."""
    if not path.exists():
        return []
    *complete, _ = path.read_text().split("\n")
    return [json.loads(line) for line in complete]


def numbers(path: Path, name: str = "number") -> list[int]:
    return [value[0] for kind, key, value in events(path) if kind == "INPUT" and key == name]


def results(flow: Linked) -> dict[str, str]:
    """Return outcome and message of every node."""
    found: dict[str, str] = {}
    for part in flow.parts.values():
        found |= {n.node: n.outcome + n.message for n in part.result().nodes}
    return found


def stop(flow: Linked) -> None:
    """Stop all parts; wait for their results."""
    for part in flow.parts.values():
        assert part.run.request(protocol.StopAllNodes(grace=2.0)) == protocol.Done()
    results(flow)


@pytest.fixture
def programs(workspace: Workspace) -> Workspace:
    workspace.node("counter", COUNTER)
    workspace.node("writer", WRITER)
    return workspace
