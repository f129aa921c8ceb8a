"""Sends files to machines over SSH: one parcel each of what that machine lacks."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from dora_cli.bundle.machine import ask
from dora_cli.bundle.progress import sending
from dora_cli.cluster import known_clusters as remembered
from dora_cli.cluster.machines import OnMachine, Say, on_machines
from dora_cli.coordinator.client import Client
from dora_cli.shipping.collection import Collected, CollectionError, all_sources
from dora_cli.ssh import RemoteCommandFailed
from dora_config.cluster.models import Cluster, Machine
from dora_config.disk_space import SPARE, DiskFull
from dora_config.protocol.control import PlacementPlan, StartDataflow
from dora_config.protocol.dataflow import DataflowSpec

TAKE_TIMEOUT = 600.0


class NotPushed(CollectionError):
    """The code is not on every machine that needs it; ``str()`` says why."""


def push(client: Client, spec: DataflowSpec, parts: Mapping[str, Collected]) -> None:
    """Have the files of these nodes on the machines that they will run on; raises NotPushed."""
    cluster = _cluster(client)
    plan = client.ask(StartDataflow(spec=spec, dry_run=True), PlacementPlan)
    by_machine: dict[str, list[Collected]] = {}
    for placed in plan.nodes:
        if placed.node in parts:
            _machine(cluster, placed.node, placed.daemon)
            by_machine.setdefault(placed.daemon, []).append(parts[placed.node])
    machines = [machine for machine in cluster.machines if machine.id in by_machine]

    def work(on: OnMachine, say: Say) -> str:
        return _push(on, by_machine[on.machine.id], say)

    done = on_machines(cluster, "Sending code to {name}", work, machines=machines, said=str)
    failed = [one for one in done if not one.ok]
    if failed:
        names = ", ".join(one.machine.id for one in failed)
        raise NotPushed(f"code could not be sent to: {names}; nothing was started")


def _cluster(client: Client) -> Cluster:
    cluster = remembered.find(client.endpoint)
    if cluster is None:
        raise NotPushed(
            "`distribute: scp` sends code over SSH, and this account does not know the machines of "
            f"the coordinator at {client.endpoint}: run any `dora cluster` command with the "
            "cluster file from here (`dora cluster doctor CLUSTER.yml`, say), or use "
            "`distribute: http`"
        )
    return cluster


def _machine(cluster: Cluster, node: str, daemon: str) -> Machine:
    try:
        return cluster.machine(daemon)
    except KeyError:
        raise NotPushed(
            f'node "{node}" would run on "{daemon}", which is no machine of the cluster file; '
            "`distribute: scp` cannot reach it, `distribute: http` can"
        ) from None


def _push(on: OnMachine, parts: Sequence[Collected], say: Say) -> str:
    sources = all_sources(parts)
    program = (files("dora_cli.shipping") / "store_program.py").read_bytes()
    # Beside the parcel, of which a part may be there since an earlier transfer was cut.
    listed = ask(on.link, "place", program=program, name=f"list-{_name(sources)}")["path"]
    on.link.write(listed, json.dumps(sorted(sources)).encode(), mode=0o600)
    found = ask(on.link, "missing", program=program, path=listed)
    missing = found["missing"]
    if not missing:
        return "OK (all was there)"
    total = sum(_size(sources[digest]) for digest in missing)
    if 2 * total + SPARE > found["free"]:  # the parcel, and what is taken out of it
        raise DiskFull(found["store"], found["free"], 2 * total)
    there = ask(on.link, "place", program=program, name=_name(missing))
    with tempfile.NamedTemporaryFile(prefix="dora-parcel-") as file:
        size = _pack(Path(file.name), missing, sources)
        offset = min(int(there["size"]), size)
        progress = sending(say, size, offset=offset)
        try:
            on.link.send(Path(file.name), there["path"], offset=offset, progress=progress)
        except RemoteCommandFailed:  # a full disk, not a cut: no later transfer goes on from there
            ask(on.link, "discard", program=program, path=there["path"])
            raise
    ask(on.link, "take", program=program, timeout=TAKE_TIMEOUT, path=there["path"])
    return f"OK ({len(missing)} files, {size >> 10} KiB)"


def _size(source: Path | bytes) -> int:
    return len(source) if isinstance(source, bytes) else source.stat().st_size


def _name(digests: Iterable[str]) -> str:
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()


def _pack(parcel: Path, wanted: Iterable[str], sources: Mapping[str, Path | bytes]) -> int:
    """The same parcel each time, so that a cut transfer can go on; its size."""
    with tarfile.open(parcel, "w", format=tarfile.PAX_FORMAT) as archive:
        for digest in sorted(wanted):
            source = sources[digest]
            with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as content:
                entry = tarfile.TarInfo(digest)
                entry.size = content.seek(0, io.SEEK_END)
                content.seek(0)
                archive.addfile(entry, content)
    return parcel.stat().st_size
