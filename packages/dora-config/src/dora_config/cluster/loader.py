"""Load a cluster file, or report all its problems."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from dora_config.cluster.fleet import unknown_machines
from dora_config.cluster.models import (
    Cluster,
    Coordinator,
    FleetDescription,
    Machine,
    read_cluster,
    read_fleet,
)
from dora_config.errors import ConfigError, Problem
from dora_config.yaml.document import Document
from dora_config.yaml.findings import Finding
from dora_config.yaml.reader import read_document
from dora_config.yaml.text_files import MAX_FILE_BYTES, in_order, read_text

_Reached = TypeVar("_Reached", Machine, Coordinator)


@dataclass(frozen=True)
class LoadedCluster:
    """A valid cluster with its warnings."""

    cluster: Cluster
    warnings: tuple[Problem, ...]
    path: Path


def load_cluster(path: Path | str) -> LoadedCluster:
    """Load a cluster file; raise `ConfigError` with all problems."""
    loaded = parse_cluster(read_text(Path(path), MAX_FILE_BYTES), path=path)
    folder = Path(path).absolute().parent
    machines = tuple(_with_its_key(machine, folder) for machine in loaded.cluster.machines)
    coordinator = _with_its_key(loaded.cluster.coordinator, folder)
    update = {"machines": machines, "coordinator": coordinator}
    return replace(loaded, cluster=loaded.cluster.model_copy(update=update))


def _with_its_key(one: _Reached, folder: Path) -> _Reached:
    """Make ``identity_file`` relative to the folder of the cluster file absolute."""
    file = one.identity_file
    if file is None or file.startswith("~"):
        return one
    return one.model_copy(update={"identity_file": str(folder / file)})


def parse_cluster(text: str, *, path: Path | str = "cluster.yml") -> LoadedCluster:
    """Load a cluster from a text; `path` is its name in problems."""
    document = read_document(text, str(path))
    problems = list(document.problems)
    cluster: Cluster | None = None
    if document.data is not None or not problems:
        cluster, findings = read_cluster(document)
        problems.extend(finding.problem(document) for finding in findings)
    ordered = in_order(problems)
    if cluster is None or any(problem.severity == "error" for problem in ordered):
        raise ConfigError(ordered)
    return LoadedCluster(cluster, tuple(ordered), Path(path))


@dataclass(frozen=True)
class LoadedFleet:
    """What a file says that a fleet runs."""

    fleet: FleetDescription
    warnings: tuple[Problem, ...]
    path: Path
    cluster: Cluster | None = None
    """None: the file contains only `dataflows` and `rollout`."""
    lines: Mapping[str, int] = field(default_factory=dict)
    """Line of each dataflow."""
    document: Document | None = None
    """The file without `machines`, whose machines are in the coordinator's store only."""

    def require_known(self, machines: Collection[str]) -> None:
        """Raise ConfigError if the file names other machines; ``machines``: the coordinator's."""
        document = self.document
        if document is None or not isinstance(document.data, dict):
            return
        findings = unknown_machines(document.data, machines, "the coordinator")
        if problems := [one.problem(document) for one in findings]:
            raise ConfigError(in_order(problems))


def is_fleet_file(data: object) -> bool:
    """Return whether a file contains `dataflows` without a cluster."""
    return (
        isinstance(data, dict)
        and "dataflows" in data
        and not {"coordinator", "machines"} & set(data)
    )


def load_cluster_of(path: Path) -> Cluster | None:
    """Load a cluster file; None for a valid file of only `dataflows`. Raises ConfigError."""
    if is_fleet_file(read_document(read_text(path, MAX_FILE_BYTES), str(path)).data):
        return load_fleet(path).cluster
    return load_cluster(path).cluster


def load_fleet(path: Path) -> LoadedFleet:
    """Load `dataflows` of a cluster file, or a file of only these.

    Raises ConfigError with all problems.
    """
    text = read_text(path, MAX_FILE_BYTES)
    document = read_document(text, str(path))
    data = document.data
    lines = {}
    if isinstance(data, dict) and isinstance(data.get("dataflows"), dict):
        lines = {
            str(name): Finding(("dataflows", name), "", at_key=True).problem(document).line
            for name in data["dataflows"]
        }
    if data is None and not document.problems:
        message = "the file is empty: expected `dataflows`, what the machines are to run"
        raise ConfigError([Finding((), message).problem(document)])
    if is_fleet_file(data):
        fleet, findings = read_fleet(document)
        problems = [*document.problems, *(one.problem(document) for one in findings)]
        ordered = in_order(problems)
        if fleet is None or any(problem.severity == "error" for problem in ordered):
            raise ConfigError(ordered)
        return LoadedFleet(fleet, tuple(ordered), path, lines=lines, document=document)
    loaded = parse_cluster(text, path=path)
    if loaded.cluster.dataflows is None:
        finding = Finding((), "expected `dataflows`, what the machines are to run")
        raise ConfigError([finding.problem(document)])
    fleet = FleetDescription(dataflows=loaded.cluster.dataflows, rollout=loaded.cluster.rollout)
    return LoadedFleet(fleet, loaded.warnings, path, loaded.cluster, lines)
