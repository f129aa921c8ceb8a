"""Edges between daemons."""

from __future__ import annotations

from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedInput, ResolvedNode
from dora_config.dataflow.sources import parse_source
from dora_coordinator.links.edges import remote_edges


def test_readers_of_logs_have_an_edge_from_every_other_machine() -> None:
    reader = {"all": "dora/logs", "some": "dora/logs/warn/camera", "own": "dora/logs/info/reader"}
    nodes = tuple(
        ResolvedNode(
            id=name,
            path="node.py",
            inputs={i: ResolvedInput(source=parse_source(text)) for i, text in inputs.items()},
        )
        for name, inputs in (("camera", {}), ("arm", {}), ("reader", reader))
    )
    where = {"camera": "robot", "arm": "robot2", "reader": "base"}
    edges = remote_edges(ResolvedDataflow(nodes=nodes), where)
    assert {(e.source, e.output, e.target, e.input, e.source_machine) for e in edges["base"]} == {
        ("dora", "logs", "reader", "all", "robot"),
        ("dora", "logs", "reader", "all", "robot2"),
        ("dora", "logs/warn/camera", "reader", "some", "robot"),
    }
    assert all(e.queue_policy == "drop_oldest" for e in edges["base"])
    assert [e.output for e in edges["robot2"]] == ["logs"]
    assert len(edges["robot"]) == 2
