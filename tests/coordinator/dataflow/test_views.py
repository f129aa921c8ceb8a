"""Rows of lists and status reports."""

from __future__ import annotations

from support.simulation.fleets import running_dataflows

from dora_config.protocol.control import (
    ClusterReport,
    ClusterStatus,
    DataflowList,
    ListDataflows,
    ListNodes,
    NodeList,
)
from dora_config.protocol.daemon import (
    Heartbeat,
    Metrics,
)
from dora_config.protocol.runner import NodeStatus
from dora_config.protocol.runner_events import DataflowResult, NodeResult
from dora_coordinator.state.events import (
    DaemonMessageReceived,
)


def test_lists_show_the_metrics_of_heartbeats() -> None:
    fleet, daemon = running_dataflows("a")
    (dataflow_id,) = fleet.store
    sampled = NodeStatus(
        node="source", status="Running", pid=7, cpu_percent=12.5, memory_bytes=1000, restarts=2
    )
    metrics = Metrics(dataflow_id=dataflow_id, nodes=(sampled,))
    assert daemon.connection is not None
    fleet.handle(DaemonMessageReceived(daemon.connection, Heartbeat(metrics=(metrics,))))
    nodes = fleet.answers[fleet.request(ListNodes())]
    assert isinstance(nodes, NodeList)
    shown = {node.node: (node.status, node.pid, node.restarts) for node in nodes.nodes}
    assert shown == {"source": ("Running", 7, 2), "sink": ("Starting", None, 0)}
    cluster = fleet.answers[fleet.request(ClusterStatus())]
    assert isinstance(cluster, ClusterReport)
    assert [(one.restarts, one.connected) for one in cluster.machines] == [(2, True)]
    assert cluster.active_dataflows == 1
    fleet.disconnect(daemon)
    nodes = fleet.answers[fleet.request(ListNodes())]
    assert isinstance(nodes, NodeList)
    assert {node.status for node in nodes.nodes} == {"Unknown"}


def test_restarts_are_counted_after_the_end() -> None:
    fleet, daemon = running_dataflows("a")
    (runner,) = daemon.runners
    results = tuple(
        NodeResult(node=node, outcome="failed", message="exited with code 1", restarts=3)
        for node in runner.nodes
    )
    runner.phase = "finished"
    runner.result = DataflowResult(dataflow_id=runner.dataflow_id, nodes=results)
    daemon.report_runner(runner)
    fleet.settle()
    listed = fleet.answers[fleet.request(ListDataflows())]
    assert isinstance(listed, DataflowList)
    assert [one.restarts for one in listed.dataflows] == [3 * len(results)]
