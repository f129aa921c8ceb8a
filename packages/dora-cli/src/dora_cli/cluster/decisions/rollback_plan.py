"""Which machines `dora cluster downgrade` returns, and to which version; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from packaging.version import InvalidVersion, Version

from dora_cli.bundle.formats import Formats


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions of dora on one machine, or those of the coordinator."""

    now: str
    before: str | None = None
    """The version that an upgrade to ``now`` replaced."""
    returned: bool = False
    """Whether a rollback led to ``now``."""
    there: tuple[str, ...] = ()
    """All installed versions."""
    in_use: tuple[str, ...] = field(default=(), compare=False)
    """Versions that processes execute."""
    formats: Mapping[str, Formats] = field(default_factory=dict, compare=False)
    """Of each installed version, where they are known."""

    def __str__(self) -> str:
        if self.returned:
            return f"{self.now}, after a rollback"
        return f"{self.now}, upgraded from {self.before}" if self.before else self.now


@dataclass(frozen=True, slots=True)
class RollbackPlan:
    """Target version of each machine to return, and the version of those that stay."""

    targets: Mapping[str, str]
    coordinator: str | None
    """Target version of the coordinator; None: it stays."""
    stay: Mapping[str, str]

    @property
    def versions(self) -> str:
        """The target versions, such as ``0.1.0``."""
        named = {*self.targets.values(), *([self.coordinator] if self.coordinator else [])}
        return " and ".join(sorted(named, key=_order))


def plan(
    machines: Mapping[str, Versions], coordinator: Versions | None, to: str | None
) -> RollbackPlan:
    """Plan to undo the newest upgrade, or to switch every machine to version ``to``.

    Only machines that the upgrade reached are returned. A version that a rollback led to is not
    rolled back further: a second rollback has no targets.
    """
    everything = [*machines.values(), *([coordinator] if coordinator else [])]
    undone = _newest_upgrade(everything) if to is None else None
    targets = dict(_targets(machines, undone, to))
    target = None
    if coordinator is not None:
        target = next((version for _, version in _targets({"": coordinator}, undone, to)), None)
        if to is not None and to not in coordinator.there:
            target = None
    stay = {name: one.now for name, one in machines.items() if name not in targets}
    return RollbackPlan(targets, target, stay)


def _targets(
    machines: Mapping[str, Versions], undone: str | None, to: str | None
) -> Iterator[tuple[str, str]]:
    for name, one in machines.items():
        if to is not None:
            if one.now != to:
                yield name, to
        elif one.now == undone and one.before is not None:
            yield name, one.before


def _newest_upgrade(everything: list[Versions]) -> str | None:
    """Return the version whose upgrade is undone; None if it does not exist.

    After an upgrade that stopped half-way, the machines that it did not reach still run the
    version that the others had before.
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
