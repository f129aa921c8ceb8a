"""Sends the code of nodes with `distribute: http` or `scp`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from dora_cli import output
from dora_cli.shipping.collection import (
    IGNORE_FILE,
    Collected,
    CollectionError,
    all_sources,
    collect,
)
from dora_config.access import Endpoint
from dora_config.dataflow.resolved import ResolvedNode
from dora_config.disk_space import SPARE, DiskFull
from dora_config.protocol.control import PlacementPlan, StartDataflow
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.transfers import UploadFailed, Uploads, source_size
from dora_config.yaml.quantities import show_size

if TYPE_CHECKING:
    from dora_cli.coordinator.client import Client

MAX_NAMES = 6
"""Most files that one note lists."""


def upload(endpoint: Endpoint, parts: Iterable[Collected]) -> None:
    """Upload the missing files of nodes; raises UploadFailed."""
    sources = all_sources(parts)
    with Uploads(endpoint) as uploads:
        missing, room = uploads.missing(sorted(sources))
        sizes = {digest: source_size(sources[digest]) for digest in missing}
        total = sum(sizes.values())
        if room is not None and total > room.free - SPARE:
            problem = DiskFull(f"{room.place} on the coordinator's machine", room.free, total)
            raise UploadFailed(
                f"not enough space for the code on the coordinator at {endpoint}: {problem}"
            )
        if missing:
            output.remark(f"sending {len(missing)} files, {show_size(total)}, to the coordinator")
        for digest in missing:
            uploads.send(digest, sources[digest])


def send(client: Client, spec: DataflowSpec) -> DataflowSpec:
    """Send the files that are missing on the machines; return the spec with their digests.

    Raises CollectionError with all nodes that cannot be sent, and RequestFailed if a start would be
    refused, before anything is sent.
    """
    by_node = collect_all(spec)
    if not by_node:
        return spec
    _note_left_out(by_node.values())
    digests = {node: one.code.digest() for node, one in by_node.items()}
    built_on = {node: daemon for node, daemon in spec.built_on.items() if node not in digests}
    sent = spec.model_copy(update={"code": digests, "built_on": built_on})
    client.request(StartDataflow(spec=sent, dry_run=True), PlacementPlan)
    upload(client.endpoint, by_node.values())
    return sent


def collect_all(spec: DataflowSpec) -> dict[str, Collected]:
    """Return the files of nodes with `distribute: http` or `scp`; raises CollectionError."""
    folder = Path(spec.origin.directory)
    found: dict[str, Collected] = {}
    problems: list[str] = []
    for node in spec.resolved.nodes:
        if node.deploy.distribute == "local" or not _has_files(node):
            continue
        try:
            one = collect(node, folder)
        except CollectionError as problem:
            problems.append(f'node "{node.id}": {problem}')
            continue
        if one.code.files:
            found[node.id] = one
        else:
            output.remark(
                f'note: node "{node.id}" has `distribute: {node.deploy.distribute}`, but names no '
                f"file below {folder}; its program must already be on its machine"
            )
    if problems:
        raise CollectionError("\n".join(problems))
    return found


def _note_left_out(collected: Iterable[Collected]) -> None:
    names = sorted({name for one in collected for name in one.left_out})
    if names:
        more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
        output.remark(f"note: not sent: {', '.join(names[:MAX_NAMES])}{more} (see {IGNORE_FILE})")


def _has_files(node: ResolvedNode) -> bool:
    return node.git is None and node.kind in ("standard", "runtime", "shell")
