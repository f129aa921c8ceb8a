"""Records of the clusters whose file this account has used, for `start`, `status` and `down`."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dora_cluster.ownership import known_files
from dora_config.access import Endpoint, private_dir, state_dir
from dora_config.cluster.models import Cluster, Machine
from dora_config.frozen import Frozen


def _path(cluster: Cluster) -> Path:
    address = cluster.coordinator.addr.replace(":", "_")
    return known_files.folder() / f"{address}-{cluster.coordinator.port}.json"


class Record(Frozen):
    """What is kept of a cluster; after `dora cluster down` without the cluster itself."""

    cluster: Cluster | None = None
    file: str = "cluster.yml"
    former: tuple[Machine, ...] = ()


def _read(path: Path) -> Record:
    with suppress(OSError, ValidationError):
        return Record.model_validate_json(path.read_bytes())
    return Record()


def _update(known: Cluster, **changes: Any) -> None:
    path = _path(known)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")  # two commands may run at once
    fresh.write_text(_read(path).model_copy(update=changes).model_dump_json())
    fresh.replace(path)


def keep(cluster: Cluster, file: Path) -> None:
    """Record the machines; those that the file no longer contains become former machines."""
    private_dir(private_dir(state_dir()) / "clusters")
    before = _read(_path(cluster))
    machines = before.cluster.machines if before.cluster is not None else ()
    now = {(one.id, one.target, one.port) for one in cluster.machines}
    left = {(one.id, one.target, one.port): one for one in (*before.former, *machines)}
    former = tuple(one for key, one in left.items() if key not in now)
    _update(cluster, cluster=cluster, file=str(file.absolute()), former=former)


def with_former_places(cluster: Cluster) -> Cluster:
    """Return a cluster with the addresses at which its coordinator was before: daemons' command
    lines may still name them after `dora cluster promote --back`.
    """
    before = _read(_path(cluster)).cluster
    if before is None or not before.coordinator.former:
        return cluster
    update = {"former": before.coordinator.former}
    place = cluster.coordinator.model_copy(update=update)
    return cluster.model_copy(update={"coordinator": place})


def former_machines(cluster: Cluster) -> tuple[Machine, ...]:
    """Return machines that were in the file and may still run a daemon."""
    return _read(_path(cluster)).former


def file_of(cluster: Cluster) -> str:
    """Return the path of the cluster file that was used last."""
    return _read(_path(cluster)).file


def drop_former(cluster: Cluster, machine: Machine) -> None:
    """Remove a former machine, which has no daemon any more."""
    _update(cluster, former=tuple(one for one in former_machines(cluster) if one != machine))


def forget(cluster: Cluster) -> None:
    """Remove a cluster that was brought down or uninstalled; its former machines stay."""
    if _path(cluster).exists():
        _update(cluster, cluster=None)


def find(address: Endpoint) -> Cluster | None:
    """Return the cluster of the coordinator at ``address``; None if it is not known."""
    path = known_files.find(address)
    return None if path is None else _read(path).cluster
