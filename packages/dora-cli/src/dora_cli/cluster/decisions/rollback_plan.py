"""Which machines `dora cluster rollback` returns, and to which version; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions of dora on one machine, or those of the coordinator."""

    now: str
    before: str | None = None
    """The version that an upgrade to ``now`` replaced."""
    returned: bool = False
    """A rollback led to ``now``."""
    there: tuple[str, ...] = ()
    """All versions that can be switched to."""

    def __str__(self) -> str:
        if self.returned:
            return f"{self.now}, returned to"
        return f"{self.now}, before it {self.before}" if self.before else self.now


@dataclass(frozen=True, slots=True)
class Plan:
    """What is returned. ``stay``: machines that stay as they are, with their version."""

    targets: Mapping[str, str]
    coordinator: str | None
    """The version that the coordinator is returned to."""
    stay: Mapping[str, str]

    @property
    def versions(self) -> str:
        """The targets, such as ``0.1.0``."""
        named = {*self.targets.values(), *([self.coordinator] if self.coordinator else [])}
        return " and ".join(sorted(named, key=_order))


def plan(machines: Mapping[str, Versions], coordinator: Versions | None, to: str | None) -> Plan:
    """Take back the newest upgrade, or (``to``) have that version everywhere.

    Only machines that the upgrade reached are returned, and what a rollback has led to is not
    returned further: a second rollback finds nothing to do.
    """
    everything = [*machines.values(), *([coordinator] if coordinator else [])]
    taken_back = _newest_upgrade(everything) if to is None else None
    targets = dict(_targets(machines, taken_back, to))
    target = None
    if coordinator is not None:
        target = next((version for _, version in _targets({"": coordinator}, taken_back, to)), None)
        if to is not None and to not in coordinator.there:
            target = None
    stay = {name: one.now for name, one in machines.items() if name not in targets}
    return Plan(targets, target, stay)


def _targets(
    machines: Mapping[str, Versions], taken_back: str | None, to: str | None
) -> Iterator[tuple[str, str]]:
    for name, one in machines.items():
        if to is not None:
            if one.now != to:
                yield name, to
        elif one.now == taken_back and one.before is not None:
            yield name, one.before


def _newest_upgrade(everything: list[Versions]) -> str | None:
    """The version whose upgrade is taken back; None when there is none to take back.

    After an upgrade that stopped half-way, the machines it did not reach still run the version
    that the others had before.
    """
    settled = {one.now for one in everything if one.returned}
    upgraded = [one for one in everything if one.before is not None and one.now not in settled]
    ahead = [one for one in upgraded if one.before in {other.now for other in everything}]
    return max((one.now for one in ahead or upgraded), key=_order, default=None)


def _order(version: str) -> Version:
    try:
        return Version(version)
    except InvalidVersion:
        return Version("0")
