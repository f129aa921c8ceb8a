"""Placement of nodes on daemons; pure.

A node is placed by its machine id, else by its labels, else on the first daemon without a machine
id. Of several matches, the daemon that connected first is chosen.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedDeploy
from dora_config.errors import DoraError, PlacementError
from dora_config.yaml.suggest import closest_name


@dataclass(frozen=True)
class ConnectedDaemon:
    """A connected daemon; `machine_id` is None for an unnamed one."""

    daemon_id: str
    machine_id: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


class UnplacedNodes(DoraError):
    """Some nodes match no daemon; `errors` contains one `PlacementError` for each."""

    def __init__(self, errors: Iterable[PlacementError]) -> None:
        self.errors = tuple(errors)
        super().__init__(self.errors)

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)


def place(dataflow: ResolvedDataflow, daemons: Sequence[ConnectedDaemon]) -> dict[str, str]:
    """Return the daemon of every node; raise `UnplacedNodes` for those without a match."""
    by_node: dict[str, str] = {}
    errors: list[PlacementError] = []
    chosen: dict[tuple[str | None, frozenset[tuple[str, str]]], str] = {}
    for node in dataflow.nodes:
        requirement = (node.deploy.machine, frozenset(node.deploy.labels.items()))
        try:
            if requirement not in chosen:  # search once for all nodes with equal settings
                chosen[requirement] = choose_daemon(node.id, node.deploy, daemons).daemon_id
            by_node[node.id] = chosen[requirement]
        except PlacementError as error:
            errors.append(error)
    if errors:
        raise UnplacedNodes(errors)
    return by_node


def choose_daemon(
    node: str, deploy: ResolvedDeploy, daemons: Sequence[ConnectedDaemon]
) -> ConnectedDaemon:
    """Choose the daemon for one node; `PlacementError` lists the connected daemons."""
    if deploy.machine is not None:
        for daemon in daemons:
            if daemon.machine_id == deploy.machine:
                return daemon
        raise PlacementError(node, _no_machine(deploy.machine, daemons))
    if deploy.labels:
        for daemon in daemons:
            if _shared(daemon, deploy.labels) == len(deploy.labels):
                return daemon
        raise PlacementError(node, _no_labels(deploy.labels, daemons))
    for daemon in daemons:
        if daemon.machine_id is None:
            return daemon
    hint = "" if not daemons else "; name one with `deploy: {machine: ...}`"
    raise PlacementError(node, f"no unnamed daemon connections{_connected(daemons)}{hint}")


def _no_machine(machine: str, daemons: Sequence[ConnectedDaemon]) -> str:
    near = closest_name(machine, [one.machine_id for one in daemons if one.machine_id])
    suggestion = f'; did you mean "{near}"?' if near is not None else ""
    sentence = f'no matching daemon for machine id "{machine}"'
    return f"{sentence}{_connected(daemons)}{suggestion}"


def _no_labels(wanted: Mapping[str, str], daemons: Sequence[ConnectedDaemon]) -> str:
    sentence = f"no daemon matches labels {_labels(wanted)}{_connected(daemons)}"
    nearest = max(daemons, key=lambda one: _shared(one, wanted), default=None)
    if nearest is None:
        return sentence
    if not _shared(nearest, wanted):
        return f"{sentence}; no daemon has any of these labels"
    lacking = {
        key: nearest.labels.get(key) for key in wanted if nearest.labels.get(key) != wanted[key]
    }
    reasons = ", ".join(
        f"{key} is {json.dumps(has, ensure_ascii=False)}" if has is not None else f"no {key}"
        for key, has in lacking.items()
    )
    return f"{sentence}; {_name(nearest)} is the closest match, but it has {reasons}".replace(
        "it has no ", "has no "
    )


def _shared(daemon: ConnectedDaemon, wanted: Mapping[str, str]) -> int:
    return sum(daemon.labels.get(key) == value for key, value in wanted.items())


def _connected(daemons: Sequence[ConnectedDaemon]) -> str:
    if not daemons:
        return "; no daemon is connected"
    shown = ", ".join(_described(daemon) for daemon in daemons[:10])
    more = f" and {len(daemons) - 10} more" if len(daemons) > 10 else ""
    return f"; connected: {shown}{more}"


def _described(daemon: ConnectedDaemon) -> str:
    return f"{_name(daemon)} {_labels(daemon.labels)}" if daemon.labels else _name(daemon)


def _name(daemon: ConnectedDaemon) -> str:
    return f'"{daemon.machine_id}"' if daemon.machine_id is not None else "an unnamed daemon"


def _labels(labels: Mapping[str, str]) -> str:
    return json.dumps(dict(labels), ensure_ascii=False)
