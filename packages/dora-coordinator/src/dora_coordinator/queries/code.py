"""Lookup of the code that was sent to the coordinator for a node."""

from __future__ import annotations

from dora_config.file_store import FileRefused
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.dataflow.registry import DataflowRegistry


def find_code(registry: DataflowRegistry, build: str, node_id: str) -> str:
    """Return the digest of a node's `CodeSet`; raises FileRefused (404).

    ``build``: the id of a build or the UUID of a dataflow that was started from it, or the name of
    a running dataflow.
    """
    dataflow = _find_dataflow(registry, build)
    if dataflow is None:
        raise FileRefused(404, f'no artifact of node "{node_id}" in build "{build}"')
    nodes = dataflow.spec.resolved.nodes
    node = next((one for one in nodes if one.id == node_id), None)
    if node is None:
        known = ", ".join(one.id for one in nodes)
        text = f'dataflow {dataflow.label} has no node "{node_id}"; its nodes are: {known}'
        raise FileRefused(404, text)
    digest = dataflow.spec.code.get(node_id)
    if digest is None:
        local = node.deploy.distribute == "local"
        reason = "it was started with `distribute: local`" if local else "it has no files"
        text = f'the coordinator does not have the code of node "{node_id}": {reason}'
        raise FileRefused(404, text)
    return digest


def _find_dataflow(registry: DataflowRegistry, build: str) -> Dataflow | None:
    """Return the dataflow that was started last, if several fit."""
    fitting = [
        one for one in registry if build in (one.id, one.spec.build_id, one.spec.delivered_by)
    ]
    return fitting[-1] if fitting else registry.live_named(build)
