"""The code of a node as a tar archive: which files it has, and its bytes piece by piece."""

from __future__ import annotations

import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import anyio.to_thread

from dora_config.file_store import FileStore
from dora_config.protocol.code import CodeFile, CodeLink, CodeSet
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.dataflow.registry import DataflowRegistry
from dora_coordinator.io.artifacts import ArtifactRefused

PIECE: Final = 1 << 20
"""Bytes read from a file at once."""
ARCHIVE_TYPE: Final = "application/x-tar"


def find_code(registry: DataflowRegistry, build: str, node_id: str) -> str:
    """The digest of a node's `CodeSet`; raises ArtifactRefused (404) with the reason.

    ``build``: the id of a build or the UUID of a dataflow that was started from it, or the name of
    one that runs.
    """
    dataflow = _dataflow_of(registry, build)
    if dataflow is None:
        raise ArtifactRefused(404, f'no artifact of node "{node_id}" in build "{build}"')
    node = next((one for one in dataflow.spec.resolved.nodes if one.id == node_id), None)
    if node is None:
        known = ", ".join(one.id for one in dataflow.spec.resolved.nodes)
        raise ArtifactRefused(
            404, f'dataflow {dataflow.label} has no node "{node_id}"; its nodes are: {known}'
        )
    digest = dataflow.spec.code.get(node_id)
    if digest is None or node.deploy.distribute != "http":
        raise ArtifactRefused(
            404,
            f'the coordinator does not have the code of node "{node_id}": it was started with '
            f"`distribute: {node.deploy.distribute}`, and only `http` sends code here",
        )
    return digest


def _dataflow_of(registry: DataflowRegistry, build: str) -> Dataflow | None:
    """The one started last, if several fit."""
    named = registry.live_named(build)
    fitting = [
        one for one in registry if build in (one.id, one.spec.build_id, one.spec.delivered_by)
    ]
    return fitting[-1] if fitting else named


class NodeArchive:
    """The files of one `CodeSet`, all of them present when it was made."""

    def __init__(self, code: CodeSet, paths: dict[str, Path]) -> None:
        """``paths``: where the content of each digest lies."""
        self._code = code
        self._paths = paths

    @classmethod
    def load(cls, store: FileStore, digest: str, node_id: str) -> NodeArchive:
        """Blocking. Raises ArtifactRefused (404) if anything is missing."""
        text = store.use(digest)
        code = None if text is None else CodeSet.model_validate_json(text.read_bytes())
        files = () if code is None else code.files
        paths = {file.sha256: store.use(file.sha256) for file in files}
        found = {name: path for name, path in paths.items() if path is not None}
        if code is None or len(found) < len(paths):
            raise ArtifactRefused(
                404, f'the code of node "{node_id}" is no longer on the coordinator: start it again'
            )
        return cls(code, found)

    async def stream(self) -> AsyncIterator[bytes]:
        """The archive; holds at most one piece of a file in memory."""
        for file in self._code.files:
            async with await anyio.open_file(self._paths[file.sha256], "rb") as content:
                size = os.fstat(content.wrapped.fileno()).st_size
                yield _entry(file, size).tobuf(tarfile.PAX_FORMAT)
                while piece := await content.read(PIECE):
                    yield piece
            yield bytes(-size % tarfile.BLOCKSIZE)
        for link in self._code.links:
            yield _link(link).tobuf(tarfile.PAX_FORMAT)
        yield bytes(2 * tarfile.BLOCKSIZE)


def _entry(file: CodeFile, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(file.path)
    entry.size = size
    entry.mode = 0o755 if file.executable else 0o644
    return entry


def _link(link: CodeLink) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(link.path)
    entry.type = tarfile.SYMTYPE
    entry.linkname = link.target
    return entry
