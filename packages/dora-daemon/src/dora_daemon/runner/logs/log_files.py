"""A node's log file: JSON lines, appended across restarts, rotated by size or by other programs."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path


class LogFile:
    """A file whose parts are at most ``max_size`` bytes, unless one line is longer.

    Other accounts cannot read it. Errors are returned once and never raised, because nodes also
    run without a log file.
    """

    def __init__(self, path: Path, *, max_size: int | None = None, rotated: int = 5) -> None:
        self.path = path
        self._max_size = max_size
        self._rotated = rotated
        self._descriptor: int | None = None
        self._created = False
        self._size = 0
        self._torn = False
        """The last write was incomplete: a newline must be written first."""
        self.problem: str | None = None
        """The first error; entries after it may be missing."""

    def create(self) -> str | None:
        """Create the file; return the message of the first error."""
        return self.write(())

    def write(self, lines: Sequence[str]) -> str | None:
        """Append lines without their newlines; return the message of the first error.

        Lines of one call may be in several parts.
        """
        encoded = [f"{line}\n".encode("utf-8", "replace") for line in lines]
        try:
            if self._descriptor is not None and self._was_removed(self._descriptor):
                self.close()
            if self._descriptor is None:
                self._open()
            first = 0
            while first < len(encoded):
                count = self._fitting(encoded, first)
                if count:
                    self._write(b"".join(encoded[first : first + count]))
                    first += count
                else:
                    self._rotate()
        except OSError as error:
            return self._failed(error)
        return None

    def _fitting(self, lines: Sequence[bytes], first: int) -> int:
        """Return how many lines fit in the current part, at least one if it is empty."""
        if self._max_size is None:
            return len(lines) - first
        size, count = self._size + self._torn, 0
        for line in itertools.islice(lines, first, None):
            size += len(line)
            if size > self._max_size and (count or self._size):
                break
            count += 1
        return count

    def _write(self, data: bytes) -> None:
        assert self._descriptor is not None
        view = memoryview(b"\n" + data if self._torn else data)
        while view:
            self._torn = True
            written = os.write(self._descriptor, view)
            self._size += written
            view = view[written:]
        self._torn = False

    def _open(self) -> None:
        if not self._created:
            self.path.parent.parent.mkdir(0o700, parents=True, exist_ok=True)
            self.path.parent.mkdir(0o700, exist_ok=True)
        else:  # a removed folder of the whole dataflow is not created again
            self.path.parent.parent.mkdir(0o700, exist_ok=True)
            self.path.parent.mkdir(0o700, exist_ok=True)
        self._created = True
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(self.path, flags, 0o600)
        self._size = os.fstat(self._descriptor).st_size

    def _was_removed(self, descriptor: int) -> bool:
        """Return whether the file was moved or removed; update the size of a truncated one."""
        try:
            found = self.path.stat()
        except OSError:
            return True
        self._size = found.st_size
        return not os.path.samestat(found, os.fstat(descriptor))

    def _rotate(self) -> None:
        self.close()
        self._torn = False
        self._numbered(self._rotated).unlink(missing_ok=True)
        for number in range(self._rotated - 1, 0, -1):
            if self._numbered(number).exists():
                self._numbered(number).replace(self._numbered(number + 1))
        self.path.replace(self._numbered(1))
        self._open()

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _failed(self, error: OSError) -> str | None:
        if self.problem is not None:
            return None
        self.problem = (
            f"cannot write the log file {self.path}: {error.strerror}; entries are missing in"
            " it from now on, the nodes run on"
        )
        return self.problem

    def close(self) -> None:
        """Close the file; a later entry opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
