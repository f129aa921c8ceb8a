"""Edges and backpressure cycles."""

from __future__ import annotations

from support.runner.nodes import node

from dora_config.dataflow.resolved import ResolvedNode
from dora_daemon.runner.machine.edges import Edge, backpressure_cycles


def test_text_of_an_edge() -> None:
    assert str(Edge("a", "x", "b", "in")) == "a/x -> b/in"


def test_cycles_of_nodes_that_can_wait_for_each_other() -> None:
    def waiting(node_id: str, reads: str) -> ResolvedNode:
        spec = node(node_id, reads=reads, outputs="x")
        inputs = {
            name: wanted.model_copy(update={"queue_policy": "backpressure"})
            for name, wanted in spec.inputs.items()
        }
        return spec.model_copy(update={"inputs": inputs})

    line = [node("a", outputs="x"), waiting("b", "a/x"), waiting("c", "b/x")]
    assert backpressure_cycles(line) == ()
    assert backpressure_cycles([node("a", reads="b/x", outputs="x"), node("b", reads="a/x")]) == ()
    (cycle,) = backpressure_cycles([*line[:1], waiting("b", "a/x c/x"), line[2]])
    assert set(cycle) == {"b", "c"}
