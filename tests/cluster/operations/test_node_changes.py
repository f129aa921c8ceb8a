"""Whether nodes kept running across a restart of their daemon."""

from __future__ import annotations

import pytest

from dora_cluster.operations.daemon_switch import node_problems
from dora_config.protocol.snapshot import NodeSummary

KEY = ("flow", "camera")


def node(pid: int = 7, restarts: int = 0, status: str = "Running") -> NodeSummary:
    fields = {"dataflow": "flow", "node": "camera", "daemon": "robot", "status": status}
    return NodeSummary.model_validate({**fields, "pid": pid, "restarts": restarts})


@pytest.mark.parametrize(
    ("after", "problem"),
    [
        (node(), None),
        (node(pid=8, restarts=1), None),
        (node(pid=8), 'node "camera" was started again'),
        (node(status="Failed"), 'node "camera" is Failed'),
        (None, 'node "camera" is gone'),
    ],
)
def test_problem_of_a_node(after: NodeSummary | None, problem: str | None) -> None:
    now = {} if after is None else {KEY: after}
    assert list(node_problems({KEY: node()}, now)) == ([] if problem is None else [problem])
