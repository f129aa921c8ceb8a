"""The links to the current and the previous version of dora on a machine; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dora_cli.bundle.formats import parse
from dora_cli.cluster.decisions.rollback_plan import Versions


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

        A switch changes the links first and restarts the daemon then; it may have been cut off in
        between.
        """
        if running in ("", self.current) or not self.current:
            return self
        if running == self.previous:  # an upgrade was cut off
            return VersionLinks(running, "")
        if self.previous == self.current:  # a rollback was cut off
            return VersionLinks(running, self.previous)
        return self


def installed_versions(found: Mapping[str, Any], running: str) -> Versions:
    """Return the versions that ``probe`` found, given the folder that the daemon runs from."""
    versions = {str(one["name"]): str(one["version"]) for one in found["trees"]}
    links = VersionLinks.from_probe(found)
    if links.previous != running:  # an upgrade that was cut off counts as done
        links = links.of_running(running)
    return Versions(
        versions.get(links.current, "none"),
        versions.get(links.previous) if links.previous != links.current else None,
        returned=links.previous == links.current != "",
        there=tuple(versions.values()),
        in_use=tuple(versions[name] for name in found.get("in_use", ()) if name in versions),
        formats={str(one["version"]): parse(one.get("formats", {})) for one in found["trees"]},
    )
