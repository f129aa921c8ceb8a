"""File in which a recorder reports its state to processes that may start later.

Its blocks are allocated at the start, so that the report about a full disk can be written.
"""

from __future__ import annotations

import os
import zlib
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from dora_config.process_identity import boot_id, is_alive, start_time
from dora_config.protocol.recorders import RecorderStatus

ALLOCATED_BYTES = 64 * 1024
"""Bytes of disk space that a status file allocates, so that a full disk does not prevent
reports."""
_ATTEMPTS = 20
"""Attempts to read the report, which may be overwritten meanwhile."""


class StatusFile:
    """Written by one process."""

    def __init__(self, path: Path) -> None:
        """Create the file. Raises OSError."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(self._descriptor, 0, ALLOCATED_BYTES)
            self.write(identified())
        except BaseException:
            os.close(self._descriptor)
            path.unlink()
            raise

    def write(self, status: RecorderStatus) -> None:
        """Replace the report; without effect if the disk is full and it no longer fits."""
        text = status.model_dump_json().encode()
        with suppress(OSError):
            os.pwrite(self._descriptor, b"%08x %d %s\n" % (zlib.crc32(text), len(text), text), 0)

    def close(self) -> None:
        os.close(self._descriptor)


def identified(**values: object) -> RecorderStatus:
    """Return a status of this process."""
    pid = os.getpid()
    identity = {"pid": pid, "start_time": start_time(pid) or 0, "boot_id": boot_id()}
    return RecorderStatus.model_validate(identity | values)


def read_status(path: Path) -> RecorderStatus | None:
    """Return the last report; None if there is none."""
    for _ in range(_ATTEMPTS):
        try:
            checksum, size, rest = path.read_bytes().split(b" ", 2)
            text = rest[: int(size)]
            if int(checksum, 16) == zlib.crc32(text):
                return RecorderStatus.model_validate_json(text)
        except OSError:
            return None
        except (ValueError, ValidationError):
            pass
    return None


def is_recording(status: RecorderStatus) -> bool:
    """Return whether the process of a status runs."""
    return (
        status.end is None
        and status.boot_id == boot_id()
        and is_alive(status.pid, status.start_time)
    )
