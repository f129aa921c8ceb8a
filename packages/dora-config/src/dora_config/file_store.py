"""Content-addressed store of files, with resumable uploads and garbage collection.

ROOT/ab/abcd...     a complete file, named by its SHA-256; its mtime is the time of the last use
ROOT/partial/abcd.. the part of a file that was received so far
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from io import BufferedRandom
from pathlib import Path
from typing import Final

from dora_config.access import private_dir
from dora_config.errors import DoraError

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
PARTIAL_AGE: Final = 7 * 24 * 3600.0
"""Seconds after which an incomplete file is removed."""


class FileRefused(DoraError):
    """A file cannot be stored or returned; ``status`` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class FileStore:
    """Store in one folder, which several processes may use at once; all calls block."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def root(self) -> Path:
        """The folder of the store."""
        return self._root

    def path(self, digest: str) -> Path:
        """Return the path of a complete file; raise `FileRefused` (400)."""
        if not _DIGEST.fullmatch(digest):
            raise FileRefused(400, f"{digest[:80]!r} is not a SHA-256 of 64 hexadecimal digits")
        return self._root / digest[:2] / digest

    def use(self, digest: str) -> Path | None:
        """Return a file and update its time of last use; ``None`` if it does not exist."""
        path = self.path(digest)
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        return path

    def missing(self, digests: Iterable[str]) -> list[str]:
        """Return those that are not in the store; the others count as used now."""
        return [digest for digest in digests if self.use(digest) is None]

    def arrived(self, digest: str) -> int:
        """Return the number of received bytes of an incomplete file."""
        self.path(digest)
        try:
            return self._partial(digest).stat().st_size
        except FileNotFoundError:
            return 0

    def open_partial(self, digest: str, offset: int) -> BufferedRandom:
        """Open an incomplete file at ``offset`` for writing, to be passed to :meth:`publish`.

        Its contents stay if it is closed without that. Raise `FileRefused`: 409 if another upload
        is writing it, 416 if ``offset`` is beyond its end.
        """
        self.path(digest)
        private_dir(self._root)
        private_dir(self._root / "partial")
        file = self._lock_partial(digest)
        try:
            if offset > os.fstat(file.fileno()).st_size:
                raise FileRefused(416, f"{digest}: fewer than {offset} bytes were received")
            file.seek(offset)
            file.truncate()
        except BaseException:
            file.close()
            raise
        return file

    def _lock_partial(self, digest: str) -> BufferedRandom:
        """Open and lock an incomplete file; raise `FileRefused` (409)."""
        path = self._partial(digest)
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            file = open(handle, "r+b")  # noqa: SIM115 - the caller closes it
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Published or removed before the lock: this is not the incomplete file any more.
                if _is_at(path, file):
                    return file
            except BlockingIOError:
                file.close()
                text = f"{digest} is being written by another upload"
                raise FileRefused(409, text) from None
            except BaseException:
                file.close()
                raise
            file.close()

    def publish(self, digest: str, file: BufferedRandom) -> None:
        """Check the digest of a file and rename it; raise `FileRefused` (422) and remove it."""
        target = self.path(digest)
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != digest:
            self._partial(digest).unlink()
            raise FileRefused(422, f"the received file has SHA-256 {found}, expected {digest}")
        private_dir(target.parent)
        self._partial(digest).replace(target)

    def discard(self, digest: str) -> None:
        """Remove an incomplete file, unless another process writes it."""
        self.path(digest)
        path = self._partial(digest)
        with suppress(FileNotFoundError), path.open("r+b") as file, suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, file):
                path.unlink()

    def _partial(self, digest: str) -> Path:
        return self._root / "partial" / digest

    def collect(self, *, max_age: float, max_bytes: int) -> int:
        """Remove files unused for ``max_age`` seconds, then the oldest above ``max_bytes``.

        Files used in the last minute stay. Return the count of removed files. Raise `OSError` if a
        file cannot be removed.
        """
        now = time.time()
        found = []
        for path in self._root.glob("[0-9a-f][0-9a-f]/*"):
            with suppress(FileNotFoundError):
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
        found.sort()
        total = sum(size for _, size, _ in found)
        removed = 0
        for used, size, path in found:
            old = now - used > max_age
            if now - used < 60 or not (old or total > max_bytes):
                continue
            with suppress(FileNotFoundError):
                if path.stat().st_mtime != used:
                    continue  # used since it was listed
                path.unlink()
                removed += 1
            total -= size
        for path in (self._root / "partial").glob("*"):
            with suppress(FileNotFoundError):
                if now - path.stat().st_mtime > PARTIAL_AGE:
                    path.unlink()
        return removed


def _is_at(path: Path, file: BufferedRandom) -> bool:
    """Return whether ``path`` still leads to an open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
