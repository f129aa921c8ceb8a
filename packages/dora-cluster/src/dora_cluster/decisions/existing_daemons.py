"""Whether daemons on a machine belong to this cluster, to its file, or to another cluster; pure."""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from dora_cluster.decisions.units import daemon_arguments
from dora_config.access import address_text
from dora_config.cluster.models import Cluster, Machine
from dora_config.frozen import Frozen
from dora_config.yaml.quantities import show_age


@dataclass(frozen=True, slots=True)
class UserAccount:
    """The account that runs the command."""

    name: str
    """``alice@laptop``"""
    home: str
    file: str
    """Absolute path of the cluster file."""
    token: str | None
    """Fingerprint of the account's token."""

    def record(self, settings: str) -> dict[str, Any]:
        """Return the owner record that a machine stores beside its daemon."""
        kept = {"operator": self.name, "home": self.home, "file": self.file}
        return {**kept, "token": self.token, "settings": settings}

    def is_author(self, owner: Mapping[str, Any] | None) -> bool:
        """Return whether this account wrote the owner record, perhaps with an earlier token."""
        known = owner or {}
        return (known.get("operator"), known.get("home")) == (self.name, self.home)


class ExistingDaemon(Frozen):
    """A daemon that runs or is installed on a machine, as ``survey`` returns it."""

    id: str | None
    name: str
    port: int
    coordinator: tuple[str, int]
    user: str
    mine: bool
    """Whether the daemon runs as the SSH user."""
    pid: int | None
    service: str | None
    user_service: bool
    since: float
    token: str | None
    """Fingerprint of the token; None if the daemon has no readable token."""
    owner: Mapping[str, Any] | None
    """The owner record (see ``UserAccount.record``) with ``since``; None: not known."""
    dataflows: tuple[str, ...]

    def belongs_to(self, cluster: Cluster, account: UserAccount) -> bool:
        """Return whether the coordinator matches, and the token, if known, or the account."""
        is_ours = self.token in (None, account.token) or account.is_author(self.owner)
        return self.coordinator_is_of(cluster) and is_ours

    def coordinator_is_of(self, cluster: Cluster) -> bool:
        """Return whether its coordinator has a present or former address of the cluster's."""
        if address_text(*self.coordinator) in cluster.coordinator.former:
            return True
        same = _normalized(self.coordinator[0]) == _normalized(cluster.coordinator.addr)
        return same and self.coordinator[1] == cluster.coordinator.port

    def describe(self, *, now: float) -> str:
        """``daemon "robot" (service dora-daemon-robot, process 12 of ubuntu), since ...``"""
        parts = [f"service {self.service}"] if self.service else []
        process = f"process {self.pid} of" if self.pid is not None else "stopped, of"
        parts.append(f"{process} {self.user}")
        named = f'daemon "{self.id}"' if self.id else "daemon without a machine id"
        return f"{named} ({', '.join(parts)}), since {format_time(self.since, now=now)}"


ConflictKind = Literal["other cluster", "other operator", "other file"]


@dataclass(frozen=True, slots=True)
class Conflict:
    """A daemon that is changed only with ``--take-over``."""

    kind: ConflictKind
    daemon: ExistingDaemon

    @property
    def ends(self) -> bool:
        """Whether ``--take-over`` ends the daemon instead of giving it new settings."""
        return self.kind != "other file"


@dataclass(frozen=True, slots=True)
class UnexpectedDaemons:
    """Daemons on a machine beside those that the file describes."""

    conflicts: tuple[Conflict, ...] = ()
    leftovers: tuple[ExistingDaemon, ...] = ()
    """Daemons of this cluster that its file no longer contains."""


def classify(
    daemons: Sequence[ExistingDaemon],
    cluster: Cluster,
    wanted: Sequence[Machine],
    account: UserAccount,
) -> UnexpectedDaemons:
    """Classify the daemons of a machine; ``wanted``: its entries in the file."""
    conflicts = []
    leftovers = []
    by_id = {machine.id: machine for machine in wanted}
    for one in daemons:
        machine = by_id.get(one.id or "")
        foreign = one.owner is not None and not account.is_author(one.owner)
        if not one.belongs_to(cluster, account):
            conflicts.append(Conflict("other cluster", one))
        elif machine is None and foreign:
            conflicts.append(Conflict("other operator", one))
        elif machine is None and one.id is not None:
            leftovers.append(one)
        elif machine is not None and foreign and _differs(one, settings_digest(cluster, machine)):
            conflicts.append(Conflict("other file", one))
    return UnexpectedDaemons(tuple(conflicts), tuple(leftovers))


def _differs(one: ExistingDaemon, wanted: str) -> bool:
    return one.owner is not None and one.owner.get("settings") != wanted


def settings_digest(cluster: Cluster, machine: Machine) -> str:
    """Return a digest of all settings of the daemon in the file."""
    given = [daemon_arguments(cluster, machine), dict(sorted(machine.env.items()))]
    return hashlib.sha256(json.dumps(given).encode()).hexdigest()[:16]


def describe_conflicts(
    name: str, conflicts: Sequence[Conflict], cluster: Cluster, account: UserAccount, *, now: float
) -> str:
    """Return the lines about one machine in a refusal."""
    other_cluster = any(conflict.kind == "other cluster" for conflict in conflicts)
    user = "another cluster" if other_cluster else "another operator of this cluster"
    lines = [f"{name} is in use by {user}:"]
    for conflict in conflicts:
        lines.append(f"  {conflict.daemon.describe(now=now)}")
        lines += [f"    {line}" for line in _facts(conflict, cluster, account, now)]
    return "\n".join(lines)


def _facts(conflict: Conflict, cluster: Cluster, account: UserAccount, now: float) -> Iterator[str]:
    one = conflict.daemon
    here = address_text(cluster.coordinator.addr, cluster.coordinator.port)
    there = address_text(*one.coordinator)
    if conflict.kind != "other cluster":
        yield f"coordinator: {there}, as in {account.file}"
    elif there != here:
        yield f"coordinator: {there} ({account.file} has {here})"
    else:
        yield f"coordinator: {there}, with another token than this account's"
    if one.owner is not None:
        since = format_time(float(one.owner["since"]), now=now)
        yield f"set up by: {one.owner['operator']} from {one.owner['file']}, {since}"
    else:
        yield f"set up by: unknown; it runs as {one.user}"
    if conflict.kind == "other file":
        yield "that file has other labels, ports or env for it"
    if one.dataflows:
        yield f"dataflows: {', '.join(one.dataflows)}"
    elif one.pid is not None:
        yield "dataflows: none" if one.mine else "dataflows: unknown"


def format_time(since: float, *, now: float) -> str:
    """``2026-01-31 09:30:00 (2 h ago)``"""
    age = show_age(max(0.0, now - since))
    return f"{datetime.fromtimestamp(since):%Y-%m-%d %H:%M:%S} ({age} ago)"


def _normalized(address: str) -> str:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address
