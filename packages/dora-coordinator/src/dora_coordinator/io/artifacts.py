"""Store of built files by build and node id; uploads are checked and limited in size."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from dora_config.access import private_dir
from dora_config.errors import DoraError, InvalidId
from dora_config.ids import parse_node_id

_BUILD_ID: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")
_MAX_NODE_ID: Final = 128
"""Characters; file names need room for a suffix."""


class ArtifactRefused(DoraError):
    """An upload or download is refused; ``status`` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Artifact:
    path: Path
    size: int
    sha256: str


class ArtifactStore:
    """Files ``<build>/<node>`` and ``<build>/<node>:sha256`` under one private folder.

    An id cannot contain a colon, so the names cannot collide.
    """

    def __init__(self, root: Path, *, max_bytes: int) -> None:
        self._root = root
        self._max_bytes = max_bytes

    def find(self, build_id: str, node_id: str) -> Artifact | None:
        """Return the stored file, if any; raises :class:`ArtifactRefused` for an invalid id."""
        path = self._path(build_id, node_id)
        try:
            checksum = _checksum_file(path).read_text()
            return Artifact(path, path.stat().st_size, checksum)
        except FileNotFoundError:
            return None

    async def receive(
        self, build_id: str, node_id: str, body: AsyncIterator[bytes], *, expected: str | None
    ) -> Artifact:
        """Store ``body``; :meth:`find` returns it once it is complete and its checksum correct."""
        path = self._path(build_id, node_id)
        private_dir(self._root)
        private_dir(path.parent)
        partial = path.with_name(f"{path.name}:{secrets.token_hex(8)}")
        digest = hashlib.sha256()
        size = 0
        try:
            async with await anyio.open_file(partial, "xb", opener=_private) as file:
                async for piece in body:
                    size += len(piece)
                    if size > self._max_bytes:
                        raise ArtifactRefused(
                            413, f"larger than {self._max_bytes} bytes (setting max_artifact_bytes)"
                        )
                    digest.update(piece)
                    await file.write(piece)
            found = digest.hexdigest()
            if expected is not None and expected.lower() != found:
                raise ArtifactRefused(422, f"the content has SHA-256 {found}, expected {expected}")
            await anyio.to_thread.run_sync(_publish, partial, path, found)
        except OSError as problem:
            reason = f"{problem.filename or path.parent}: {problem.strerror or problem}"
            raise ArtifactRefused(507, reason) from problem
        finally:
            partial.unlink(missing_ok=True)
        return Artifact(path, size, found)

    def _path(self, build_id: str, node_id: str) -> Path:
        if not _BUILD_ID.fullmatch(build_id):
            raise ArtifactRefused(
                400, f'build id "{build_id}": must be 1 to 128 letters, digits, _ . -'
            )
        if len(node_id) > _MAX_NODE_ID:
            raise ArtifactRefused(400, f"node id: longer than {_MAX_NODE_ID} characters")
        try:
            return self._root / build_id / parse_node_id(node_id)
        except InvalidId as problem:
            raise ArtifactRefused(400, str(problem)) from problem


def _checksum_file(path: Path) -> Path:
    return path.with_name(f"{path.name}:sha256")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _publish(partial: Path, path: Path, checksum: str) -> None:
    handle = os.open(partial, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    beside = partial.with_name(f"{partial.name}.sum")
    try:
        with open(beside, "x", opener=_private) as file:
            file.write(checksum)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    _checksum_file(path).unlink(missing_ok=True)  # a file without a checksum is not served
    partial.replace(path)
    beside.replace(_checksum_file(path))
