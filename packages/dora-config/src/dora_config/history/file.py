"""History file: one JSON object a line, written without waiting for the disk."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from dora_config.atomic_write import write_file
from dora_config.history.entries import HistoryEntry, SavedEntry, decode_entry, encode_entry

MAX_FILE_BYTES: Final = 8 << 20
"""Bytes that are read from the end of a file; only many long entries make it larger."""


class HistoryFile:
    """Appended to by one process; errors do not stop it, and are returned once.

    The folder and the one above it are created if they are missing, not readable by
    other accounts.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._failed = False
        self.lines = 0
        """Lines since the file was last replaced; the reader of an earlier file adds its lines."""

    def append(self, entry: HistoryEntry) -> str | None:
        """Append an entry; return the message of the first error."""
        data = f"{encode_entry(entry)}\n".encode("utf-8", "replace")
        try:
            descriptor = self._open()
            try:
                size = os.fstat(descriptor).st_size
                if size and os.pread(descriptor, 1, size - 1) != b"\n":
                    data = b"\n" + data  # the last line is torn
                os.write(descriptor, data)
            finally:
                os.close(descriptor)
        except OSError as error:
            return self._problem(error)
        self.lines += 1
        return None

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            return os.open(self.path, flags, 0o600)
        except FileNotFoundError:
            self.path.parent.parent.mkdir(0o700, exist_ok=True)
            self.path.parent.mkdir(0o700, exist_ok=True)
            return os.open(self.path, flags, 0o600)

    def replace(self, entries: Iterable[SavedEntry]) -> str | None:
        """Replace the whole file atomically; return the message of the first error."""
        self.lines = 0
        text = "".join(f"{encode_entry(entry)}\n" for entry in entries)
        try:
            write_file(self.path, text.encode("utf-8", "replace"), mode=0o600)
        except OSError as error:
            return self._problem(error)
        return None

    def _problem(self, error: OSError) -> str | None:
        if self._failed:
            return None
        self._failed = True
        return (
            f"cannot write {self.path}: {error.strerror}; later entries are missing in it, "
            "the nodes run on"
        )


def read_history(path: Path) -> list[SavedEntry]:
    """Return the entries of a file, oldest first; without torn lines. Raises OSError.

    Of a file above `MAX_FILE_BYTES`, only the newest entries are returned.
    """
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - MAX_FILE_BYTES))
        data = file.read(MAX_FILE_BYTES)
    return [entry for line in data.splitlines() if (entry := decode_entry(line)) is not None]
