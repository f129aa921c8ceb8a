"""Files known by their content: kept once, received in pieces, whole or not there, collected.

ROOT/ab/abcd...     a file whose SHA-256 is its name; the time of its last change is that of its
                    last use
ROOT/partial/abcd.. what has arrived of one so far
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from io import BufferedRandom
from pathlib import Path
from typing import Final

from dora_config.access import private_dir
from dora_config.errors import DoraError
from dora_config.file_ages import last_change

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
PARTIAL_AGE: Final = 7 * 24 * 3600.0
"""Seconds after which what arrived of a file and was never completed is removed."""


class FileRefused(DoraError):
    """A file cannot be stored or given; ``status`` is the HTTP status that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class FileStore:
    """Blocking; any number of processes may use one folder at once."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def root(self) -> Path:
        """Folder of all files."""
        return self._root

    def path(self, digest: str) -> Path:
        """Where a file lies or would lie; raises FileRefused (400)."""
        if not _DIGEST.fullmatch(digest):
            raise FileRefused(400, "a file is named by its SHA-256: 64 hexadecimal digits")
        return self._root / digest[:2] / digest

    def use(self, digest: str) -> Path | None:
        """The file, which now counts as used; ``None`` if it is not there."""
        path = self.path(digest)
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        return path

    def missing(self, digests: Iterable[str]) -> list[str]:
        return [digest for digest in digests if self.use(digest) is None]

    def arrived(self, digest: str) -> int:
        """Bytes of a file that is not whole yet."""
        self.path(digest)
        try:
            return self._partial(digest).stat().st_size
        except FileNotFoundError:
            return 0

    def open_partial(self, digest: str, offset: int) -> BufferedRandom:
        """A file to write what comes from ``offset`` on, then to be given to :meth:`publish`. What
        was written stays when it is closed before.

        Raises FileRefused: 409 when somebody else is sending it, 416 for an offset beyond what is
        there.
        """
        self.path(digest)
        private_dir(self._root)
        private_dir(self._root / "partial")
        handle = os.open(self._partial(digest), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        file = open(handle, "r+b")  # noqa: SIM115 - the caller closes it
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if offset > os.fstat(file.fileno()).st_size:
                raise FileRefused(416, f"{digest}: so far not {offset} bytes have arrived")
            file.seek(offset)
            file.truncate()
        except BlockingIOError:
            file.close()
            raise FileRefused(409, f"{digest} is being sent by somebody else") from None
        except BaseException:
            file.close()
            raise
        return file

    def publish(self, digest: str, file: BufferedRandom) -> None:
        """Check what was written and give it its name; raises FileRefused (422), and then nothing
        is kept.
        """
        target = self.path(digest)
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != digest:
            self._partial(digest).unlink()
            raise FileRefused(422, f"what arrived has SHA-256 {found}, announced was {digest}")
        private_dir(target.parent)
        self._partial(digest).replace(target)

    def discard(self, digest: str) -> None:
        """Remove what has arrived of a file that is not whole."""
        self.path(digest)
        self._partial(digest).unlink(missing_ok=True)

    def _partial(self, digest: str) -> Path:
        return self._root / "partial" / digest

    def add(self, content: bytes) -> str:
        """Store ``content``; its digest."""
        digest = hashlib.sha256(content).hexdigest()
        if self.use(digest) is None:
            with self.open_partial(digest, 0) as file:
                file.write(content)
                self.publish(digest, file)
        return digest

    def collect(self, *, max_age: float, max_bytes: int, keep: Collection[str] = ()) -> int:
        """Remove what was not used for ``max_age`` seconds, then the oldest until ``max_bytes`` are
        left; how many files went. ``keep`` stays, and so does what was used a minute ago.
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
            if path.name in keep or now - used < 60 or not (old or total > max_bytes):
                continue
            path.unlink(missing_ok=True)
            total -= size
            removed += 1
        for path in (self._root / "partial").glob("*"):
            with suppress(FileNotFoundError):
                if now - last_change(path, now) > PARTIAL_AGE:
                    path.unlink()
        return removed
