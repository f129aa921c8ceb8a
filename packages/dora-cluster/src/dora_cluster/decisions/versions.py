"""Versions that run in the cluster, and machines that may switch to another one; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from packaging.version import InvalidVersion, Version

from dora_cluster.bundle import formats
from dora_cluster.bundle.formats import Formats, parse


@dataclass(frozen=True, slots=True)
class NewVersion:
    """The version to which a machine switches."""

    version: str
    formats: Formats


@dataclass(frozen=True, slots=True)
class VersionCheck:
    """``problems`` prevent the switch; ``remarks`` say what it does not allow later."""

    problems: tuple[str, ...]
    remarks: tuple[str, ...]


def check_switch(
    machines: Mapping[str, Versions],
    targets: Mapping[str, NewVersion],
    dataflows: Mapping[str, Sequence[str]],
    linked: Mapping[str, Sequence[str]],
    coordinator: Formats,
) -> VersionCheck:
    """``dataflows``: names of those that run, by machine; ``linked``: of those that exchange
    messages with other machines; ``coordinator``: version of the daemons' coordinator.
    """
    problems: list[str] = []
    remarks: list[str] = []
    for name, target in targets.items():
        problems += _problems(name, machines[name], target, dataflows.get(name, ()), coordinator)
        remarks += _remarks(name, machines[name], target, linked.get(name, ()))
    return VersionCheck(tuple(problems), tuple(remarks))


def _problems(
    name: str, there: Versions, target: NewVersion, running: Sequence[str], coordinator: Formats
) -> Iterator[str]:
    version, new, now = target.version, target.formats, there.formats.get(there.now, {})
    found = formats.unreadable(new, now, formats.RECORDS)
    found = found or formats.unreadable(new, now, formats.DATAFLOWS)
    if found is not None:
        yield (
            f"{name}: dora {version} cannot read what dora {there.now} has written there "
            f"({found}); stop its dataflows, run `dora cluster uninstall`, and then `install` "
            f"from an installation of dora {version}"
        )
    found = formats.differs(new, coordinator, formats.CONTROL_PLANE)
    found = found or formats.unreadable(new, coordinator, formats.DATAFLOWS)
    if found is not None:
        yield (
            f"{name}: the daemon of dora {version} could not connect to the coordinator ({found}); "
            "switch to a version in between first"
        )
    if not running:
        return
    for used in there.in_use:
        found = formats.differs(new, there.formats.get(used, {}), formats.RUNNER)
        if found is not None:
            yield (
                f"{name}: the daemon of dora {version} could not control the nodes that dora "
                f"{used} runs there ({found}); run {_commands('stop', running)} before, and start "
                "them again afterwards"
            )


def _remarks(
    name: str, there: Versions, target: NewVersion, running: Sequence[str]
) -> Iterator[str]:
    for used in there.in_use if running else ():
        found = formats.differs(target.formats, there.formats.get(used, {}), formats.LINK)
        if found is not None:
            yield (
                f"{name}: if its nodes are started again (a reboot), they cannot exchange messages "
                f"with those that dora {used} runs on other machines ({found}); run "
                f"{_commands('restart', running)} after this command"
            )


def _commands(command: str, dataflows: Sequence[str]) -> str:
    return ", ".join(f"`dora {command} {one}`" for one in dataflows)


@dataclass(frozen=True, slots=True)
class VersionLinks:
    """Names of the folders that the two links lead to; empty for a missing link."""

    current: str
    previous: str

    @classmethod
    def from_probe(cls, found: Mapping[str, Any]) -> VersionLinks:
        """Read the links from the answer of ``probe``."""
        current, previous = found["current"], found["previous"]
        return cls(current["name"] if current else "", previous["name"] if previous else "")

    def of_running(self, running: str) -> VersionLinks:
        """Return the links that belong to the version ``running``.

        A switch changes the links, then restarts the daemon; it may have been interrupted in
        between.
        """
        if running in ("", self.current) or not self.current:
            return self
        if running == self.previous:  # an upgrade was interrupted
            return VersionLinks(running, "")
        if self.previous == self.current:  # a rollback was interrupted
            return VersionLinks(running, self.previous)
        return self


def installed_versions(found: Mapping[str, Any], running: str) -> Versions:
    """Return the versions that ``probe`` found, given the folder that the daemon runs from."""
    versions = {str(one["name"]): str(one["version"]) for one in found["trees"]}
    links = VersionLinks.from_probe(found)
    if links.previous != running:  # an upgrade that was interrupted counts as done
        links = links.of_running(running)
    return Versions(
        versions.get(links.current, "none"),
        versions.get(links.previous) if links.previous != links.current else None,
        returned=links.previous == links.current != "",
        there=tuple(versions.values()),
        in_use=tuple(versions[name] for name in found.get("in_use", ()) if name in versions),
        formats={str(one["version"]): parse(one.get("formats", {})) for one in found["trees"]},
    )


@dataclass(frozen=True, slots=True)
class Versions:
    """Versions of dora on one machine, or of the coordinator."""

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
    """Formats of each installed version, where they are known."""

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
