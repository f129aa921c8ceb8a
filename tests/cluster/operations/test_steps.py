"""Waiting for the nodes of a coordinator that was replaced."""

from __future__ import annotations

import pytest

from dora_cli.coordinator.errors import CoordinatorBusy, CoordinatorLost, CoordinatorRefused
from dora_cluster.coordinator import queries
from dora_cluster.coordinator.queries import Nodes
from dora_cluster.decisions.preflight import NotReady
from dora_cluster.operations import steps
from dora_config.cluster.models import Cluster, Coordinator, Machine
from dora_config.protocol.snapshot import NodeSummary

CLUSTER = Cluster(
    coordinator=Coordinator(addr="10.0.0.1"), machines=(Machine(id="robot", host="robot"),)
)
NODES: Nodes = {
    ("flow", name): NodeSummary(dataflow="flow", node=name, daemon="robot", status="Running")
    for name in ("camera", "plot")
}


def answer(monkeypatch: pytest.MonkeyPatch, *answers: Nodes | None) -> None:
    """Let the coordinator answer with these nodes; None: it is busy. The last one repeats."""
    left = list(answers)

    def fetch(_: Cluster) -> Nodes:
        found = left.pop(0) if len(left) > 1 else left[0]
        if found is None:
            raise CoordinatorBusy("too many connections")
        return found

    monkeypatch.setattr(queries, "fetch_nodes", fetch)
    monkeypatch.setattr(steps, "POLL_INTERVAL", 0.0)


def test_a_busy_coordinator_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, None, {}, None, NODES)
    steps.wait_for_nodes(CLUSTER, NODES)


@pytest.mark.parametrize(
    ("last", "missing"),
    [(None, "camera, plot"), ({}, "camera, plot"), (dict(list(NODES.items())[:1]), "plot")],
    ids=["busy", "none", "some"],
)
def test_missing_nodes_are_named(
    monkeypatch: pytest.MonkeyPatch, last: Nodes | None, missing: str
) -> None:
    answer(monkeypatch, last)
    monkeypatch.setattr(steps, "RECONNECT_TIMEOUT", 0.0)
    with pytest.raises(NotReady, match=f"misses nodes: {missing}; see"):
        steps.wait_for_nodes(CLUSTER, NODES)


def test_a_lost_connection_does_not_end_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "POLL_INTERVAL", 0.0)
    left: list[Exception] = [CoordinatorLost("cut"), CoordinatorBusy("busy")]

    def condition() -> bool:
        if left:
            raise left.pop(0)
        return True

    steps.poll(condition, "not met")
    left.append(CoordinatorRefused("HTTP status 403"))
    with pytest.raises(CoordinatorRefused):
        steps.poll(condition, "not met")
