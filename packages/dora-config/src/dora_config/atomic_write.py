"""Atomic write of a file."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path


def write_file(
    path: Path, content: str | bytes, *, mode: int = 0o666, durable: bool = False
) -> None:
    """Create or replace a file atomically; an OSError names ``path``.

    A pipe, a device or a path in /dev such as /dev/stdout is written without being replaced.
    ``mode``, less the umask, also applies when a file is replaced. ``durable``: the content
    survives a power cut.
    """
    data = content.encode() if isinstance(content, str) else content
    if path.parent == Path("/dev") or (path.exists() and not path.is_file()):
        path.write_bytes(data)
        return
    temporary = path.with_name(f".{path.name}.new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def sync_folder(folder: Path) -> None:
    """Write a folder's entries to the disk; ignores file systems that cannot sync folders.

    An OSError names ``folder``.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise OSError(error.errno, error.strerror, str(folder)) from error
    finally:
        os.close(descriptor)
