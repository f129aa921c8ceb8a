"""The code of a node as a tar archive, streamed piece by piece."""

from __future__ import annotations

import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import anyio.to_thread
from pydantic import ValidationError

from dora_config.file_store import FileRefused, FileStore
from dora_config.protocol.code import CodeFile, CodeLink, CodeSet

PIECE: Final = 1 << 20
"""Bytes read from a file at once."""
MAX_LIST: Final = 64 << 20
"""Largest list of a node's files in bytes."""
ARCHIVE_TYPE: Final = "application/x-tar"


class NodeArchive:
    """The files of one `CodeSet`, all of them present when it was loaded."""

    def __init__(self, code: CodeSet, paths: dict[str, Path]) -> None:
        """``paths``: the file with the content of each digest."""
        self._code = code
        self._paths = paths

    @classmethod
    def load(cls, store: FileStore, digest: str, node_id: str) -> NodeArchive:
        """Blocking. Raises OSError, and FileRefused: 404 if a file is missing, 422 if the file
        ``digest`` is not a `CodeSet`.
        """
        listed = store.use(digest)
        code = None if listed is None else _read(listed, node_id)
        files = () if code is None else code.files
        paths = {file.sha256: store.use(file.sha256) for file in files}
        found = {name: path for name, path in paths.items() if path is not None}
        if code is None or len(found) < len(paths):
            raise FileRefused(
                404,
                f'the code of node "{node_id}" was removed from the coordinator; start it again',
            )
        return cls(code, found)

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield the archive; holds at most one piece of a file in memory."""
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


def _read(listed: Path, node_id: str) -> CodeSet:
    """Read a list of files; any file of the store may have the digest that a client sent."""
    size = listed.stat().st_size
    if size > MAX_LIST:
        raise FileRefused(
            422,
            f'the code of node "{node_id}" is a list of files of {size} bytes, at most {MAX_LIST} '
            "are read",
        )
    try:
        return CodeSet.model_validate_json(listed.read_bytes())
    except ValidationError as problem:
        raise FileRefused(
            422, f'the code of node "{node_id}" is not a valid list of files; start it again'
        ) from problem


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
