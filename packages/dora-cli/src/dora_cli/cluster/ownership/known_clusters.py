"""Records of the clusters whose file this account has used, for `start`, `status` and `down`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from dora_cli.cluster.coordinator.local import is_local
from dora_config.access import Endpoint, private_dir, state_dir
from dora_config.cluster.models import Cluster, Machine
from dora_config.frozen import Frozen

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def _folder() -> Path:
    return state_dir() / "clusters"


def _path(cluster: Cluster) -> Path:
    address = cluster.coordinator.addr.replace(":", "_")
    return _folder() / f"{address}-{cluster.coordinator.port}.json"


class History(Frozen):
    """The record beside a cluster: its file, and its former machines."""

    file: str = "cluster.yml"
    machines: tuple[Machine, ...] = ()


def keep(cluster: Cluster, file: Path) -> None:
    """Record the machines; those that the file no longer contains become former machines."""
    private_dir(private_dir(state_dir()) / "clusters")
    before = [*former_machines(cluster)]
    with suppress(OSError, ValidationError):
        before += Cluster.model_validate_json(_path(cluster).read_bytes()).machines
    _replace(_path(cluster), cluster.model_dump_json())
    _write_history(cluster, str(file.absolute()), before)


def former_machines(cluster: Cluster) -> tuple[Machine, ...]:
    """Return machines that were in the file and may still run a daemon."""
    return _history(cluster).machines


def file_of(cluster: Cluster) -> str:
    """Return the path of the cluster file that was used last."""
    return _history(cluster).file


def drop_former(cluster: Cluster, machine: Machine) -> None:
    """Remove a former machine, which has no daemon any more."""
    left = [one for one in former_machines(cluster) if one != machine]
    _write_history(cluster, file_of(cluster), left)


def _write_history(cluster: Cluster, file: str, machines: Sequence[Machine]) -> None:
    now = {(one.id, one.target, one.port) for one in cluster.machines}
    left = {(one.id, one.target, one.port): one for one in machines}
    former = tuple(one for key, one in left.items() if key not in now)
    _replace(_history_path(cluster), History(file=file, machines=former).model_dump_json())


def _history(cluster: Cluster) -> History:
    with suppress(OSError, ValidationError):
        return History.model_validate_json(_history_path(cluster).read_bytes())
    return History()


def _history_path(cluster: Cluster) -> Path:
    return _path(cluster).with_suffix(".earlier")


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text)
    fresh.replace(path)


def forget(cluster: Cluster) -> None:
    """Remove the record of a cluster that was brought down or uninstalled."""
    _path(cluster).unlink(missing_ok=True)


def find(address: Endpoint) -> Cluster | None:
    """Return the cluster of the coordinator at ``address``; None if it is not known.

    A loopback address matches any address of this machine (of several clusters with their
    coordinator here, the one whose file was used last), or it is a tunnel to another machine.
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
    here = [pair for pair in found if is_local(pair[1].coordinator.addr)]
    if here:
        return max(here, key=lambda pair: pair[0])[1]
    return found[0][1] if len(found) == 1 else None
