"""Choice of the daemon of one node; pure.

A node is placed by its machine id, else by its labels, else on the first daemon without a machine
id. Of several matches, the daemon that connected first is chosen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from dora_config.dataflow.resolved import ResolvedNode
from dora_config.yaml.suggest import closest
from dora_coordinator.state.commands import RequestRefused
from dora_coordinator.state.membership import Member

_MAX_LISTED = 10
"""Most daemons that a sentence lists; further ones are counted."""


def choose_daemon(node: ResolvedNode, members: Sequence[Member]) -> str:
    """Return the key of a node's daemon. Raises RequestRefused, which lists ``members``."""
    machine, labels = node.deploy.machine, node.deploy.labels
    for member in members:
        own = member.register.machine_id
        if machine is not None or not labels:
            fits = own == machine
        else:
            fits = _shared(member, labels) == len(labels)
        if fits:
            return member.key
    if machine is not None:
        near = closest(machine, filter(None, (one.register.machine_id for one in members)))
        sentence = f'no matching daemon for machine id "{machine}"{_connected(members)}{near}'
    elif labels:
        sentence = _no_labels(labels, members)
    else:
        hint = "; name one with `deploy: {machine: ...}`" if members else ""
        sentence = f"no unnamed daemon connections{_connected(members)}{hint}"
    raise RequestRefused("placement", f'node "{node.id}": {sentence}')


def _no_labels(wanted: Mapping[str, str], members: Sequence[Member]) -> str:
    sentence = f"no daemon matches labels {_labels(wanted)}{_connected(members)}"
    nearest = max(members, key=lambda one: _shared(one, wanted), default=None)
    if nearest is None:
        return sentence
    if not _shared(nearest, wanted):
        return f"{sentence}; no daemon has any of these labels"
    has = nearest.register.labels
    reasons = ", ".join(
        f"{key} is {json.dumps(has[key], ensure_ascii=False)}" if key in has else f"no {key}"
        for key, value in wanted.items()
        if has.get(key) != value
    )
    return f"{sentence}; {_name(nearest)} is the closest match, but it has {reasons}".replace(
        "it has no ", "has no "
    )


def _shared(member: Member, wanted: Mapping[str, str]) -> int:
    return sum(member.register.labels.get(key) == value for key, value in wanted.items())


def _connected(members: Sequence[Member]) -> str:
    if not members:
        return "; no daemon is connected"
    shown = ", ".join(_described(member) for member in members[:_MAX_LISTED])
    more = f" and {len(members) - _MAX_LISTED} more" if len(members) > _MAX_LISTED else ""
    return f"; connected: {shown}{more}"


def _described(member: Member) -> str:
    labels = member.register.labels
    return f"{_name(member)} {_labels(labels)}" if labels else _name(member)


def _name(member: Member) -> str:
    machine = member.register.machine_id
    return "an unnamed daemon" if machine is None else f'"{machine}"'


def _labels(labels: Mapping[str, str]) -> str:
    return json.dumps(dict(labels), ensure_ascii=False)
