"""Placement of a dataflow's nodes on connected daemons; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dora_config.dataflow.placement import (
    ConnectedDaemon,
    UnplacedNodes,
    choose_daemon,
    place as choose,
)
from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedDeploy, ResolvedNode
from dora_config.errors import PlacementError
from dora_config.protocol.control import Placed, PlacementPlan
from dora_config.protocol.dataflow import DataflowSpec
from dora_coordinator.state.commands import RequestRefused
from dora_coordinator.state.membership import Member


@dataclass(frozen=True, slots=True)
class Plan:
    """``parts`` maps daemons to node ids; ``explained`` gives the reason for each node."""

    parts: dict[str, tuple[str, ...]]
    explained: PlacementPlan


def place(dataflow: ResolvedDataflow, members: Sequence[Member]) -> Plan:
    """Raises :class:`RequestRefused` if no daemon fits some of the nodes."""
    try:
        by_node = choose(dataflow, _daemons(members))
    except UnplacedNodes as problem:
        raise RequestRefused("placement", str(problem)) from problem
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


def place_one(node: ResolvedNode, members: Sequence[Member]) -> str:
    """Return the daemon of one node; raises :class:`RequestRefused`."""
    try:
        return choose_daemon(node.id, node.deploy, _daemons(members)).daemon_id
    except PlacementError as problem:
        raise RequestRefused("placement", str(problem)) from problem


def _daemons(members: Sequence[Member]) -> list[ConnectedDaemon]:
    return [
        ConnectedDaemon(member.key, member.register.machine_id, member.register.labels)
        for member in members
    ]


def require_built(spec: DataflowSpec, placement: Mapping[str, tuple[str, ...]]) -> None:
    """Raise :class:`RequestRefused` if a node would run on another daemon than built it."""
    for daemon, nodes in placement.items():
        for node in nodes:
            built_on = spec.built_on.get(node)
            if built_on is not None and built_on != daemon:
                reason = (
                    f'it was built on daemon "{built_on}" and would now run on "{daemon}"; run '
                    "`dora build` again"
                )
                raise RequestRefused("placement", str(PlacementError(node, reason)))


def _reason(deploy: ResolvedDeploy) -> str:
    if deploy.machine is not None:
        return f'machine "{deploy.machine}"'
    if deploy.labels:
        return f"first daemon with labels {json.dumps(deploy.labels, ensure_ascii=False)}"
    return "first daemon without a machine id"
