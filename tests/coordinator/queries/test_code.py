"""Lookup of the code that was sent to the coordinator for a node."""

from __future__ import annotations

import pytest
from support.simulation.fleets import SimulatedFleet, dataflow

from dora_config.file_store import FileRefused
from dora_coordinator.dataflow.registry import DataflowRegistry
from dora_coordinator.queries.code import find_code

DIGEST = "0" * 64


def registry() -> DataflowRegistry:
    """Return the registry of a fleet that runs "patrol" with the code of one of two nodes."""
    fleet = SimulatedFleet()
    fleet.add_daemon()
    fleet.settle()
    spec = dataflow(camera=None, plot=None)
    update = {"name": "patrol", "code": {"camera": DIGEST}}
    fleet.start(spec.model_copy(update=update))
    fleet.settle()
    assert fleet.coordinator is not None
    return fleet.coordinator.registry


def test_code_is_found_by_name_and_uuid_of_the_dataflow() -> None:
    dataflows = registry()
    (known,) = dataflows
    assert find_code(dataflows, "patrol", "camera") == DIGEST
    assert find_code(dataflows, known.id, "camera") == DIGEST


@pytest.mark.parametrize(
    ("build", "node", "message"),
    [
        ("other", "camera", 'no artifact of node "camera" in build "other"'),
        ("patrol", "arm", 'has no node "arm"; its nodes are: camera, plot'),
        ("patrol", "plot", 'code of node "plot": it was started with `distribute: local`'),
    ],
)
def test_missing_code_is_refused_with_the_reason(build: str, node: str, message: str) -> None:
    with pytest.raises(FileRefused, match=message) as refused:
        find_code(registry(), build, node)
    assert refused.value.status == 404
