"""Clusters whose file this account has used, so that `start` and `down` find their machines."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from dora_cli.cluster.coordinator import local as coordinator_here
from dora_config.access import Endpoint, private_dir, state_dir
from dora_config.cluster.models import Cluster, Machine
from dora_config.dataflow.resolved import Frozen

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def _folder() -> Path:
    return state_dir() / "clusters"


def _path(cluster: Cluster) -> Path:
    address = cluster.coordinator.addr.replace(":", "_")
    return _folder() / f"{address}-{cluster.coordinator.port}.json"


class Earlier(Frozen):
    """What is recorded beside a cluster: its file, and machines that were in it before."""

    file: str = "cluster.yml"
    machines: tuple[Machine, ...] = ()


def keep(cluster: Cluster, file: Path) -> None:
    """Record the machines; those that left the file since are recorded as former ones."""
    private_dir(private_dir(state_dir()) / "clusters")
    before = [*former(cluster)]
    with suppress(OSError, ValidationError):
        before += Cluster.model_validate_json(_path(cluster).read_bytes()).machines
    _replace(_path(cluster), cluster.model_dump_json())
    _keep_former(cluster, str(file.absolute()), before)


def former(cluster: Cluster) -> tuple[Machine, ...]:
    """Machines that were in the file and may still run a daemon."""
    return _earlier(cluster).machines


def file_of(cluster: Cluster) -> str:
    """The cluster file that was used last."""
    return _earlier(cluster).file


def drop(cluster: Cluster, machine: Machine) -> None:
    """A former machine has no daemon any more."""
    left = [one for one in former(cluster) if one != machine]
    _keep_former(cluster, file_of(cluster), left)


def _keep_former(cluster: Cluster, file: str, machines: Sequence[Machine]) -> None:
    now = {(one.id, one.target, one.port) for one in cluster.machines}
    left = {(one.id, one.target, one.port): one for one in machines}
    kept = tuple(one for key, one in left.items() if key not in now)
    _replace(_sidecar(cluster), Earlier(file=file, machines=kept).model_dump_json())


def _earlier(cluster: Cluster) -> Earlier:
    with suppress(OSError, ValidationError):
        return Earlier.model_validate_json(_sidecar(cluster).read_bytes())
    return Earlier()


def _sidecar(cluster: Cluster) -> Path:
    return _path(cluster).with_suffix(".earlier")


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text)
    fresh.replace(path)


def forget(cluster: Cluster) -> None:
    """It has been brought down or uninstalled."""
    _path(cluster).unlink(missing_ok=True)


def find(address: Endpoint) -> Cluster | None:
    """The cluster of the coordinator at ``address``; None when it is not known.

    A loopback address stands for any address of this machine (of clusters with their coordinator
    here, the one whose file was used last is meant), or is the end of a tunnel to another one.
    """
    found: list[tuple[float, Cluster]] = []
    folder = _folder()
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        try:
            cluster = Cluster.model_validate_json(path.read_bytes())
            used = path.stat().st_mtime
        except (ValidationError, OSError):
            continue
        same_host = address.host in (cluster.coordinator.addr, *_LOOPBACK)
        if same_host and cluster.coordinator.port == address.port:
            found.append((used, cluster))
    here = [pair for pair in found if coordinator_here.is_own(pair[1].coordinator.addr)]
    if here:
        return max(here, key=lambda pair: pair[0])[1]
    return found[0][1] if len(found) == 1 else None
