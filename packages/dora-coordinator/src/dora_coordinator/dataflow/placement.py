"""Placement of a dataflow's nodes on connected daemons; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedDeploy, ResolvedNode
from dora_config.protocol.control import Placed, PlacementPlan
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.links import LINK_PROTOCOL, link_versions_fit
from dora_coordinator.dataflow.daemon_choice import choose_daemon
from dora_coordinator.links.edges import remote_edges
from dora_coordinator.state.commands import RequestRefused
from dora_coordinator.state.membership import Member


@dataclass(frozen=True, slots=True)
class Plan:
    """``parts`` maps daemons to node ids; ``explained`` gives the reason for each node."""

    parts: dict[str, tuple[str, ...]]
    explained: PlacementPlan


def place(spec: DataflowSpec, members: Sequence[Member]) -> Plan:
    """Return the daemon of each node, with the reason.

    Raises :class:`RequestRefused` if a node has no matching daemon, or if the versions of the
    machines are incompatible.
    """
    dataflow = spec.resolved
    by_node = _daemons(dataflow, members)
    parts: dict[str, list[str]] = {}
    for node, daemon in by_node.items():
        parts.setdefault(daemon, []).append(node)
    chosen = {member.key: member for member in members if member.key in parts}
    problems = _unreadable(dataflow.nodes, by_node, chosen)
    if not spec.allow_unlinked:
        problems += _unlinkable(dataflow, by_node, chosen)
    if problems:
        raise RequestRefused("placement", "\n".join(problems))
    explained = PlacementPlan(
        nodes=tuple(
            Placed(node=node.id, daemon=by_node[node.id], reason=_reason(node.deploy))
            for node in dataflow.nodes
        )
    )
    return Plan({daemon: tuple(nodes) for daemon, nodes in parts.items()}, explained)


def place_one(node: ResolvedNode, members: Sequence[Member]) -> str:
    """Return the daemon of one node; raises :class:`RequestRefused`."""
    daemon = choose_daemon(node, members)
    by_key = {member.key: member for member in members}
    if problems := _unreadable((node,), {node.id: daemon}, by_key):
        raise RequestRefused("placement", "\n".join(problems))
    return daemon


def _unreadable(
    nodes: Sequence[ResolvedNode], by_node: Mapping[str, str], members: Mapping[str, Member]
) -> list[str]:
    """Return the problem of each machine that cannot read its nodes: their format is too new."""
    newest: dict[str, tuple[int, int]] = {}
    for node in nodes:
        daemon = by_node[node.id]
        newest[daemon] = max(newest.get(daemon, node.format), node.format)
    return [
        f'machine "{daemon}" runs {_release(member)}, which reads dataflows of format '
        f"{member.register.dataflow_format[0]}.x, and this one has format {_shown(needed)}; "
        "upgrade the machine: `dora cluster upgrade`"
        for daemon, needed in newest.items()
        if needed[0] > (member := members[daemon]).register.dataflow_format[0]
    ]


def _unlinkable(
    dataflow: ResolvedDataflow, by_node: Mapping[str, str], members: Mapping[str, Member]
) -> list[str]:
    """Return the problem of each pair of machines that share edges but have incompatible links."""
    edges = [edge for found in remote_edges(dataflow, by_node).values() for edge in found]
    pairs = sorted({tuple(sorted((one.source_machine, one.target_machine))) for one in edges})
    problems = []
    for names in pairs:
        one, other = (members[name] for name in names)
        if link_versions_fit(one.register.link_version, other.register.link_version):
            continue
        first, second = (
            f'"{member.key}" ({_release(member)}, {LINK_PROTOCOL} '
            f"{_shown(member.register.link_version)})"
            for member in (one, other)
        )
        problems.append(
            f"machines {first} and {second} cannot exchange messages; have the same version on "
            "both: `dora cluster upgrade`"
        )
    return problems


def _release(member: Member) -> str:
    return f"dora {member.register.party.release}"


def _shown(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _daemons(dataflow: ResolvedDataflow, members: Sequence[Member]) -> dict[str, str]:
    """Return the daemon of each node; raises :class:`RequestRefused` with all that have none."""
    by_node: dict[str, str] = {}
    chosen: dict[tuple[str | None, frozenset[tuple[str, str]]], str] = {}
    problems = []
    for node in dataflow.nodes:
        requirement = (node.deploy.machine, frozenset(node.deploy.labels.items()))
        try:
            if requirement not in chosen:  # search once for all nodes with equal settings
                chosen[requirement] = choose_daemon(node, members)
            by_node[node.id] = chosen[requirement]
        except RequestRefused as problem:
            problems.append(str(problem))
    if problems:
        raise RequestRefused("placement", "\n".join(problems))
    return by_node


def require_built(spec: DataflowSpec, placement: Mapping[str, tuple[str, ...]]) -> None:
    """Raise :class:`RequestRefused` if a node would run on another daemon than built it."""
    for daemon, nodes in placement.items():
        for node in nodes:
            built_on = spec.built_on.get(node)
            if built_on is not None and built_on != daemon:
                raise RequestRefused(
                    "placement",
                    f'node "{node}": it was built on daemon "{built_on}" and would now run on '
                    f'"{daemon}"; run `dora build` again',
                )


def _reason(deploy: ResolvedDeploy) -> str:
    if deploy.machine is not None:
        return f'machine "{deploy.machine}"'
    if deploy.labels:
        return f"first daemon with labels {json.dumps(deploy.labels, ensure_ascii=False)}"
    return "first daemon without a machine id"
