"""From connected daemons and a dataflow to its parts, or why not; pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from dora_config import ResolvedDataflow, ResolvedNode
from dora_config.errors import PlacementError
from dora_config.protocol.control import Placed, PlacementPlan
from dora_coordinator.membership import Member


@dataclass(frozen=True, slots=True)
class Plan:
    """Where every node goes. ``reasons`` holds (daemon, why) by node, in the order of the file."""

    reasons: dict[str, tuple[str, str]]

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """Node ids by daemon."""
        parts: dict[str, tuple[str, ...]] = {}
        for node, (daemon, _) in self.reasons.items():
            parts[daemon] = (*parts.get(daemon, ()), node)
        return parts

    def explained(self) -> PlacementPlan:
        return PlacementPlan(
            nodes=tuple(
                Placed(node=node, daemon=daemon, reason=reason)
                for node, (daemon, reason) in self.reasons.items()
            )
        )


def place(dataflow: ResolvedDataflow, members: Sequence[Member]) -> Plan:
    """Machine, then labels, then the first unnamed daemon; raises :class:`PlacementError`."""
    plan = Plan({node.id: _place_node(node, members) for node in dataflow.nodes})
    for source, consumer, input_id in dataflow.edges():
        here, there = plan.reasons[consumer][0], plan.reasons[source.node][0]
        if here != there:
            raise PlacementError(
                consumer,
                f'its input "{input_id}" reads {source.node}/{source.output}, which runs on daemon '
                f'"{there}", while "{consumer}" itself runs on "{here}": data across daemons is '
                "not supported yet; put both nodes on one machine",
            )
    return plan


def _place_node(node: ResolvedNode, members: Sequence[Member]) -> tuple[str, str]:
    deploy = node.deploy
    if deploy.machine is not None:
        for member in members:
            if member.register.machine_id == deploy.machine:
                return member.key, f'machine "{deploy.machine}"'
        raise PlacementError(
            node.id,
            f'no matching daemon for machine id "{deploy.machine}"; {_connected(members)}',
        )
    if deploy.labels:
        wanted = deploy.labels.items()
        shown = json.dumps(deploy.labels)
        for member in members:
            if wanted <= member.register.labels.items():
                return member.key, f"labels {shown}"
        raise PlacementError(node.id, f"no daemon matches labels {shown}; {_connected(members)}")
    for member in members:
        if member.register.machine_id is None:
            return member.key, "the first daemon without a machine id"
    raise PlacementError(
        node.id,
        "no unnamed daemon connections: the node asks for no machine and every connected daemon "
        f"has a machine id; {_connected(members)}",
    )


def _connected(members: Sequence[Member]) -> str:
    if not members:
        return "no daemon is connected"
    listed = ", ".join(
        f'"{m.key}"' + (f" {json.dumps(m.register.labels)}" if m.register.labels else "")
        for m in members
    )
    return f"connected: {listed}"
