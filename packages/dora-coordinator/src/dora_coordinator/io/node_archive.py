"""The code of a node as a tar archive, streamed piece by piece."""

from __future__ import annotations

import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import anyio.to_thread

from dora_config.file_store import FileRefused, FileStore
from dora_config.protocol.code import CodeFile, CodeLink, CodeSet

PIECE: Final = 1 << 20
"""Bytes read from a file at once."""
ARCHIVE_TYPE: Final = "application/x-tar"


class NodeArchive:
    """The files of one `CodeSet`, all of them present when it was loaded."""

    def __init__(self, code: CodeSet, paths: dict[str, Path]) -> None:
        """``paths``: the file with the content of each digest."""
        self._code = code
        self._paths = paths

    @classmethod
    def load(cls, store: FileStore, digest: str, node_id: str) -> NodeArchive:
        """Blocking. Raises FileRefused (404) if a file is missing."""
        text = store.use(digest)
        code = None if text is None else CodeSet.model_validate_json(text.read_bytes())
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
