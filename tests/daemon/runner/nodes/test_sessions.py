"""Processes that are refused whatever the state of the dataflow."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from support.runner.nodes import node

from dora_config.dataflow.resolved import ResolvedDataflow
from dora_config.protocol.run_plan import RunPlan
from dora_daemon.runner.nodes.local_nodes import LocalNode, LocalNodes
from dora_daemon.runner.nodes.sessions import NodeSessions
from dora_node_api.protocol.messages import Hello


def test_a_process_of_an_unknown_node_is_told_the_known_ones() -> None:
    nodes = LocalNodes()
    for name in ("b", "a"):
        program = SimpleNamespace(spec=node(name))
        nodes.add(LocalNode(cast("Any", program), cast("Any", None)))
    unused = cast("Any", None)
    sessions = NodeSessions(
        RunPlan(dataflow_id="d", resolved=ResolvedDataflow(nodes=()), working_dir="/"),
        nodes,
        unused,
        unused,
        unused,
        unused,
        cast("Any", SimpleNamespace(emit=unused)),
        unused,
    )
    sent: list[Any] = []
    closed: list[bool] = []
    connection = SimpleNamespace(
        node=None, send=sent.append, close_when_sent=lambda: closed.append(True)
    )
    sessions.hello(cast("Any", connection), Hello("zz", None, 1))
    (refused,) = sent
    assert "(its nodes: a, b)" in refused.message
    assert closed == [True]
