"""Configuration of a node, sent in `Welcome` (`dora_node_api/protocol/messages.py`); pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dora_config.dataflow.resolved import ResolvedInput, ResolvedNode
from dora_config.dataflow.sources import LogSource, OutputSource, TimerSource
from dora_config.protocol.run_plan import RunPlan
from dora_daemon.runner.nodes.queues import QueueEntry
from dora_node_api.protocol.messages import (
    InputConfig,
    NodeConfig,
    OperatorConfig,
)
from dora_node_api.queue_policy import QueuePolicy


def node_config(
    plan: RunPlan, spec: ResolvedNode, restarts: int, cycles: tuple[tuple[str, ...], ...]
) -> NodeConfig:
    """Return the configuration of a node. ``cycles``: backpressure cycles of the dataflow."""
    return NodeConfig(
        dataflow_id=plan.dataflow_id,
        node_id=spec.id,
        inputs=tuple(input_config(name, wanted) for name, wanted in spec.inputs.items()),
        outputs=spec.outputs,
        restart_count=restarts,
        descriptor=plan.descriptor,
        machine_id=plan.machine_id,
        pool_size=spec.shared_memory_pool_size,
        exit_when_nodes_finish=plan.exit_when_nodes_finish,
        operators=operator_configs(spec),
        dynamic=spec.is_dynamic,
        output_types=dict(spec.output_types),
        output_structures=_structures(spec.output_types),
        cycles=tuple(cycle for cycle in cycles if spec.id in cycle),
    )


def _structures(types: Mapping[str, str]) -> dict[str, Any]:
    if not types:
        return {}
    from dora_config.dataflow.types import structure  # few dataflows need it

    found = {output: structure(name) for output, name in types.items()}
    return {output: one for output, one in found.items() if one is not None}


def input_config(name: str, wanted: ResolvedInput) -> InputConfig:
    """Return the configuration of an input."""
    source = wanted.source
    node: str | None = None
    interval: int | None = None
    match source:
        case OutputSource():
            kind, node = "output", source.node
        case TimerSource():
            kind, interval = "timer", source.interval_ns
        case LogSource():
            kind = "logs"
    return InputConfig(
        id=name,
        source=str(source),
        source_kind=kind,
        source_node=node,
        interval_ns=interval,
        queue_size=wanted.queue_size,
        queue_policy=QueuePolicy(wanted.queue_policy),
        input_timeout=wanted.input_timeout,
    )


def link_input(entry: QueueEntry) -> InputConfig:
    """Return the configuration of a queue into the link as an input."""
    edge = entry.edge
    return InputConfig(
        id=edge.input,
        source=f"{edge.source}/{edge.output}",
        source_node=edge.source,
        queue_size=entry.spec.bound,
        queue_policy=entry.spec.policy,
    )


def operator_configs(spec: ResolvedNode) -> tuple[OperatorConfig, ...]:
    """Return the configuration of each operator of a node."""
    return tuple(
        OperatorConfig(id=operator.id, python=operator.python, outputs=operator.outputs)
        for operator in spec.operators
    )
