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
from dora_config.file_ages import last_change

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
        handle = os.open(self._partial(digest), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        file = open(handle, "r+b")  # noqa: SIM115 - the caller closes it
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if offset > os.fstat(file.fileno()).st_size:
                raise FileRefused(416, f"{digest}: fewer than {offset} bytes were received")
            file.seek(offset)
            file.truncate()
        except BlockingIOError:
            file.close()
            raise FileRefused(409, f"{digest} is being written by another upload") from None
        except BaseException:
            file.close()
            raise
        return file

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
        """Remove an incomplete file."""
        self.path(digest)
        self._partial(digest).unlink(missing_ok=True)

    def _partial(self, digest: str) -> Path:
        return self._root / "partial" / digest

    def add(self, content: bytes) -> str:
        """Store ``content`` and return its digest."""
        digest = hashlib.sha256(content).hexdigest()
        if self.use(digest) is None:
            with self.open_partial(digest, 0) as file:
                file.write(content)
                self.publish(digest, file)
        return digest

    def collect(self, *, max_age: float, max_bytes: int) -> int:
        """Remove files unused for ``max_age`` seconds, then the oldest above ``max_bytes``.

        Files used in the last minute stay. Return the count of removed files.
        """
        now = time.time()
        found = []
        for path in self._root.glob("[0-9a-f][0-9a-f]/*"):
            with suppress(FileNotFoundError):
                found.append((last_change(path, now), path.stat().st_size, path))
        found.sort()
        total = sum(size for _, size, _ in found)
        removed = 0
        for used, size, path in found:
            old = now - used > max_age
            if now - used < 60 or not (old or total > max_bytes):
                continue
            path.unlink(missing_ok=True)
            total -= size
            removed += 1
        for path in (self._root / "partial").glob("*"):
            with suppress(FileNotFoundError):
                if now - last_change(path, now) > PARTIAL_AGE:
                    path.unlink()
        return removed
