"""Placement of a dataflow's nodes on connected daemons; pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from dora_config.dataflow.placement import ConnectedDaemon, place as choose
from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedDeploy
from dora_config.protocol.control import Placed, PlacementPlan
from dora_coordinator.state.membership import Member


@dataclass(frozen=True, slots=True)
class Plan:
    """``parts`` maps daemons to node ids; ``explained`` gives the reason for each node."""

    parts: dict[str, tuple[str, ...]]
    explained: PlacementPlan


def place(dataflow: ResolvedDataflow, members: Sequence[Member]) -> Plan:
    """Raises :class:`UnplacedNodes` if no daemon fits some of the nodes."""
    daemons = [
        ConnectedDaemon(member.key, member.register.machine_id, member.register.labels)
        for member in members
    ]
    by_node = choose(dataflow, daemons)
    parts: dict[str, list[str]] = {}
    for node, daemon in by_node.items():
        parts.setdefault(daemon, []).append(node)
    explained = PlacementPlan(
        nodes=tuple(
            Placed(node=node.id, daemon=by_node[node.id], reason=_reason(node.deploy))
            for node in dataflow.nodes
        )
    )
    return Plan({daemon: tuple(nodes) for daemon, nodes in parts.items()}, explained)


def _reason(deploy: ResolvedDeploy) -> str:
    if deploy.machine is not None:
        return f'machine "{deploy.machine}"'
    if deploy.labels:
        return f"first daemon with labels {json.dumps(deploy.labels, ensure_ascii=False)}"
    return "first daemon without a machine id"
