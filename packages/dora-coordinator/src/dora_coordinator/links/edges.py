"""Edges of a dataflow that lead from one daemon to another; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dora_config.dataflow.graph import backpressure_readers, cycles
from dora_config.dataflow.resolved import ResolvedDataflow
from dora_config.dataflow.sources import LogSource
from dora_config.protocol.links import RemoteEdge


def remote_edges(
    dataflow: ResolvedDataflow, by_node: Mapping[str, str]
) -> dict[str, tuple[RemoteEdge, ...]]:
    """Return the edges between daemons, by each daemon at one of their ends.

    ``by_node`` maps nodes to daemons; edges of nodes that it does not contain are left out.
    """
    nodes = {node.id: node for node in dataflow.nodes}
    found: dict[str, list[RemoteEdge]] = {}
    on_cycles = _backpressure_cycles(dataflow)
    for source, consumer, input_id in dataflow.edges():
        there, here = by_node.get(source.node), by_node.get(consumer)
        if there is None or here is None or there == here:
            continue
        reader = nodes[consumer].inputs[input_id]
        backpressure = reader.queue_policy == "backpressure"
        edge = RemoteEdge(
            source=source.node,
            output=source.output,
            target=consumer,
            input=input_id,
            **reader.queue_settings(),
            source_machine=there,
            target_machine=here,
            cycles=on_cycles.get((source.node, consumer), ()) if backpressure else (),
        )
        for machine in (there, here):
            found.setdefault(machine, []).append(edge)
    for edge in _log_edges(dataflow, by_node):
        for machine in (edge.source_machine, edge.target_machine):
            found.setdefault(machine, []).append(edge)
    return {machine: tuple(edges) for machine, edges in found.items()}


def _backpressure_cycles(
    dataflow: ResolvedDataflow,
) -> dict[tuple[str, str], tuple[tuple[str, ...], ...]]:
    """Return the cycles of backpressure edges, by source and target of each edge on them."""
    found: dict[tuple[str, str], tuple[tuple[str, ...], ...]] = {}
    for cycle in cycles(backpressure_readers(dataflow.nodes)):
        for edge in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
            found[edge] = (*found.get(edge, ()), tuple(cycle))
    return found


def _log_edges(dataflow: ResolvedDataflow, by_node: Mapping[str, str]) -> Iterable[RemoteEdge]:
    """Yield an edge from node "dora" of each other machine to each input that reads logs."""
    machines = tuple(dict.fromkeys(by_node.values()))
    for node in dataflow.nodes:
        here = by_node.get(node.id)
        for input_id, reader in node.inputs.items():
            source = reader.source
            if here is None or not isinstance(source, LogSource):
                continue
            senders = machines if source.node is None else (by_node.get(source.node),)
            for there in senders:
                if there is not None and there != here:
                    yield RemoteEdge(
                        source="dora",
                        output=str(source).removeprefix("dora/"),
                        target=node.id,
                        input=input_id,
                        queue_size=reader.queue_size,
                        source_machine=there,
                        target_machine=here,
                    )
