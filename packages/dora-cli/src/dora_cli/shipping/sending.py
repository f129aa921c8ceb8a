"""Sends the code of nodes with `distribute: http` or `scp`."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from dora_cli import output
from dora_cli.shipping.collection import (
    Collected,
    CollectionError,
    Source,
    all_sources,
    collect,
    open_source,
    source_size,
)
from dora_cli.shipping.ignore_rules import IGNORE_FILE
from dora_config.access import Endpoint
from dora_config.control_plane import ControlConnection
from dora_config.disk_space import SPARE, DiskFull
from dora_config.errors import DoraError
from dora_config.protocol.code import (
    FILES_PATH,
    FREE_HEADER,
    OFFSET_HEADER,
    PLACE_HEADER,
    file_path,
)
from dora_config.protocol.control import PlacementPlan, StartDataflow
from dora_config.transfers import ATTEMPTS, send_file
from dora_config.yaml.quantities import show_size

if TYPE_CHECKING:
    from dora_cli.coordinator.client import Client
    from dora_config.dataflow.resolved import ResolvedNode
    from dora_config.protocol.dataflow import DataflowSpec

MAX_NAMES = 6
"""Most files that one note lists."""


TIMEOUT: Final = 30.0


class UploadFailed(DoraError):
    """The coordinator did not store all files."""


def upload(endpoint: Endpoint, parts: Iterable[Collected]) -> None:
    """Upload the missing files of nodes; raises UploadFailed."""
    sources = all_sources(parts)
    connection = _StoreConnection(endpoint)
    try:
        missing, room = connection.missing(sorted(sources))
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
            connection.send(digest, sources[digest], sizes[digest])
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class _Room:
    """Free space of the store."""

    place: str
    free: int


class _StoreConnection:
    """HTTP connection to the store; reconnects after errors."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._connection: ControlConnection | None = None

    def missing(self, digests: list[str]) -> tuple[list[str], _Room | None]:
        """Return the digests that the store lacks, and its free space if reported."""
        text = json.dumps(digests).encode()
        try:
            status, headers, body = self._once("POST", FILES_PATH, text)
        except (OSError, http.client.HTTPException) as problem:
            self.close()
            raise UploadFailed(
                f"cannot send code to the coordinator at {self._endpoint}: {problem}"
            ) from problem
        if status != 200:
            raise UploadFailed(self._refusal(status, body))
        free = headers.get(FREE_HEADER, "")
        place = unquote(headers.get(PLACE_HEADER, ""))
        room = _Room(place, int(free)) if free.isdecimal() else None
        return [str(one) for one in json.loads(body)], room

    def send(self, digest: str, source: Source, size: int) -> None:
        """Upload one file; raises UploadFailed after several attempts."""
        path = file_path(digest)
        failures = 0
        offset = 0
        while True:
            try:
                status, found, body = self._once("HEAD", path)
                if status == 200:
                    return
                offset = min(int(found.get(OFFSET_HEADER, "0")), size)
                with open_source(source) as file:
                    file.seek(offset)
                    headers = {**self._endpoint.headers(), OFFSET_HEADER: str(offset)}
                    status, body = send_file(self._open(), path, file, size - offset, headers)
            except (OSError, http.client.HTTPException) as problem:
                failures += 1
                self.close()
                if failures >= ATTEMPTS:
                    raise UploadFailed(
                        f"cannot send code to the coordinator at {self._endpoint}: {problem}"
                    ) from problem
            else:
                if status == 201:
                    return
                failures += 1
                self.close()  # the body may not have been sent in full
                if status == 422:
                    raise UploadFailed(f"{source!s} changed while it was sent; start again")
                if status != 409 or failures >= ATTEMPTS:
                    raise UploadFailed(self._refusal(status, body))
            time.sleep(0.2 * failures)

    def _once(
        self, method: str, path: str, body: bytes | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Send one request; return status, headers and body of the response."""
        connection = self._open()
        connection.request(method, path, body, self._endpoint.headers())
        with connection.getresponse() as answer:
            return answer.status, answer.headers, answer.read()

    def _open(self) -> ControlConnection:
        if self._connection is None:
            self._connection = ControlConnection(self._endpoint, timeout=TIMEOUT)
        return self._connection

    def _refusal(self, status: int, body: bytes) -> str:
        text = body[:300].decode(errors="replace").strip()
        return f"the coordinator at {self._endpoint} refused the code: HTTP status {status} {text}"

    def close(self) -> None:
        """Close the connection; the next request opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


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
