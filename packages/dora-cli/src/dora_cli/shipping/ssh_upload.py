"""Uploads missing files to machines over SSH, as one archive per machine."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dora_cli import output
from dora_cli.bundle.progress import sending
from dora_cli.cluster.machines.parallel import Report, on_machines
from dora_cli.cluster.machines.remote_machine import RemoteMachine
from dora_cli.cluster.ownership import known_clusters
from dora_cli.coordinator.client import Client
from dora_cli.remote_call import call
from dora_cli.shipping.collection import (
    Collected,
    CollectionError,
    Source,
    all_sources,
    open_source,
    source_size,
)
from dora_cli.ssh import RemoteCommandFailed
from dora_config.cluster.models import Cluster, Machine
from dora_config.disk_space import SPARE, DiskFull
from dora_config.errors import os_error_text
from dora_config.protocol.control import PlacementPlan
from dora_config.yaml.quantities import show_size

TAKE_TIMEOUT = 600.0


class NotPushed(CollectionError):
    """The code could not be sent to all machines that need it."""


def push(client: Client, plan: PlacementPlan, parts: Mapping[str, Collected]) -> None:
    """Upload the files of nodes to the machines where they will run; raises NotPushed."""
    cluster = _cluster(client)
    by_machine: dict[str, list[Collected]] = {}
    for placed in plan.nodes:
        if placed.node in parts:
            _machine(cluster, placed.node, placed.daemon)
            by_machine.setdefault(placed.daemon, []).append(parts[placed.node])
    machines = [machine for machine in cluster.machines if machine.id in by_machine]

    def work(remote: RemoteMachine, report: Report) -> str:
        return _push(remote, by_machine[remote.machine.id], report)

    done = on_machines(cluster, "Sending code to {name}", work, machines=machines, describe=str)
    failed = [one for one in done if not one.ok]
    if failed:
        names = ", ".join(one.machine.id for one in failed)
        raise NotPushed(f"could not send code to: {names}; nothing was started")


def _cluster(client: Client) -> Cluster:
    cluster = known_clusters.find(client.endpoint)
    if cluster is None:
        raise NotPushed(
            "`distribute: scp` sends code over SSH, but the machines of the coordinator at "
            f"{client.endpoint} are unknown to this account: run a `dora cluster` command with the "
            "cluster file here (such as `dora cluster doctor CLUSTER.yml`), or use "
            "`distribute: http`"
        )
    return cluster


def _machine(cluster: Cluster, node: str, daemon: str) -> Machine:
    try:
        return cluster.machine(daemon)
    except KeyError:
        raise NotPushed(
            f'node "{node}" would run on "{daemon}", which is not in the cluster file, so '
            "`distribute: scp` cannot reach it; use `distribute: http`"
        ) from None


def _push(remote: RemoteMachine, parts: Sequence[Collected], report: Report) -> str:
    sources = all_sources(parts)
    found = call(remote.connection, "code_store.missing", digests=sorted(sources))
    missing = found["missing"]
    if not missing:
        return "OK (already there)"
    total = sum(source_size(sources[digest]) for digest in missing)
    if 2 * total + SPARE > found["free"]:  # the parcel and its extracted content
        raise DiskFull(found["store"], found["free"], 2 * total)
    with tempfile.NamedTemporaryFile(prefix="dora-parcel-") as file:
        try:
            size = _pack(Path(file.name), missing, sources)
        except OSError as error:
            raise NotPushed(
                f"cannot pack the code in {tempfile.gettempdir()} of this computer: "
                f"{os_error_text(error)}; TMPDIR chooses another folder"
            ) from error
        offset = min(int(found["size"]), size)
        progress = sending(report, size, offset=offset)
        try:
            remote.connection.send(Path(file.name), found["path"], offset=offset, progress=progress)
        except RemoteCommandFailed:  # not a lost connection: cannot be resumed, as with a full disk
            call(remote.connection, "code_store.discard", path=found["path"])
            raise
    call(remote.connection, "code_store.take", timeout=TAKE_TIMEOUT, path=found["path"])
    return f"OK ({output.counted(len(missing), 'file')}, {show_size(size)})"


def _pack(parcel: Path, digests: Iterable[str], sources: Mapping[str, Source]) -> int:
    """Write a reproducible archive, so that a transfer can be resumed; return its size."""
    with tarfile.open(parcel, "w", format=tarfile.PAX_FORMAT) as archive:
        for digest in digests:
            with open_source(sources[digest]) as content:
                entry = tarfile.TarInfo(digest)
                entry.size = content.seek(0, io.SEEK_END)
                content.seek(0)
                archive.addfile(entry, content)
    return parcel.stat().st_size
