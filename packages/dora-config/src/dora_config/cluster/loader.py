"""Load a cluster file, or report all its problems."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from dora_config.cluster.fleet import (
    DataflowsFile,
    FleetDataflow,
    Rollout,
    fleet_problems,
    unknown_machines,
)
from dora_config.cluster.models import (
    CLUSTER_HINTS,
    Cluster,
    Coordinator,
    Machine,
    read_cluster,
)
from dora_config.errors import ConfigError, Problem
from dora_config.yaml.document import Document, Place
from dora_config.yaml.reader import read_document
from dora_config.yaml.text_files import MAX_FILE_BYTES, in_order, read_text
from dora_config.yaml.validation import validate

_Reached = TypeVar("_Reached", Machine, Coordinator)
_Read = TypeVar("_Read", Cluster, DataflowsFile)


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
    """Resolve a relative ``identity_file`` against the folder of the cluster file."""
    file = one.identity_file
    if file is None or file.startswith("~"):
        return one
    return one.model_copy(update={"identity_file": str(folder / file)})


def parse_cluster(text: str, *, path: Path | str = "cluster.yml") -> LoadedCluster:
    """Load a cluster from a text; `path` is its name in problems."""
    document = read_document(text, str(path))
    problems = list(document.problems)
    unreadable = problems and document.data is None
    cluster = None if unreadable else read_cluster(document, problems)
    return LoadedCluster(*_valid(cluster, problems), Path(path))


def _valid(read: _Read | None, problems: list[Problem]) -> tuple[_Read, tuple[Problem, ...]]:
    """Return the content and its warnings; raise `ConfigError`."""
    ordered = in_order(problems)
    if read is None or any(problem.severity == "error" for problem in ordered):
        raise ConfigError(ordered)
    return read, tuple(ordered)


@dataclass(frozen=True)
class LoadedFleet:
    """Content of a fleet file."""

    file: Cluster | DataflowsFile
    """`DataflowsFile`: its machines are in the coordinator's store only."""
    warnings: tuple[Problem, ...]
    place: Place

    @property
    def cluster(self) -> Cluster | None:
        """The cluster, if it is in the same file."""
        return self.file if isinstance(self.file, Cluster) else None

    @property
    def dataflows(self) -> dict[str, FleetDataflow]:
        """The dataflows by name."""
        return self.file.dataflows or {}

    @property
    def rollout(self) -> Rollout:
        """Settings of the roll-out; defaults if the file has none."""
        return Rollout() if self.file.rollout is None else Rollout(**dict(self.file.rollout))

    def location(self, name: str) -> str:
        """Return file and line of a dataflow."""
        span = self.place.document.span(("dataflows", name), at_key=True)
        return f"{self.place.document.file}:{span.line}"

    def require_known(self, machines: Collection[str]) -> None:
        """Raise ConfigError if the file names other machines; ``machines``: the coordinator's."""
        fleet = self.dataflows, self.file.rollout, self.place
        problems = [*unknown_machines(*fleet, machines, "the coordinator")]
        if problems and self.cluster is None:
            raise ConfigError(in_order(problems))


def _is_fleet_file(data: object) -> bool:
    """Return whether a file contains `dataflows` without a cluster."""
    return (
        isinstance(data, dict)
        and "dataflows" in data
        and not {"coordinator", "machines"} & set(data)
    )


def load_cluster_of(path: Path) -> Cluster | None:
    """Load a cluster file; None for a valid file of only `dataflows`. Raises ConfigError."""
    document = read_document(read_text(path, MAX_FILE_BYTES), str(path))
    if _is_fleet_file(document.data):
        _read_fleet(document)
        return None
    return load_cluster(path).cluster


def _read_fleet(document: Document) -> tuple[DataflowsFile, tuple[Problem, ...]]:
    """Read a file of only `dataflows` and `rollout`."""
    problems, place = list(document.problems), Place(document)
    fleet = validate(DataflowsFile, document.data, place, problems, CLUSTER_HINTS.get)
    if fleet is not None:
        problems.extend(fleet_problems(fleet.dataflows, fleet.rollout, place))
    return _valid(fleet, problems)


def load_fleet(path: Path) -> LoadedFleet:
    """Load `dataflows` of a cluster file, or a file of only these.

    Raises ConfigError with all problems.
    """
    text = read_text(path, MAX_FILE_BYTES)
    document = read_document(text, str(path))
    place = Place(document)
    expected = "expected `dataflows`, what the machines are to run"
    if document.data is None and not document.problems:
        raise ConfigError([place.problem(f"the file is empty: {expected}")])
    if _is_fleet_file(document.data):
        return LoadedFleet(*_read_fleet(document), place)
    loaded = parse_cluster(text, path=path)
    if loaded.cluster.dataflows is None:
        raise ConfigError([place.problem(expected)])
    return LoadedFleet(loaded.cluster, loaded.warnings, place)
