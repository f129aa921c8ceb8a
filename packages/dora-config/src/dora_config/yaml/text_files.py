"""Reading of text files, and sorting of problems."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from dora_config.errors import ConfigError, Problem

MAX_FILE_BYTES = 16 << 20
"""Most bytes of a text file that is read."""


def read_text(path: Path, limit: int) -> str:
    """Return the text of a file of at most `limit` bytes; raise `ConfigError`."""
    try:
        with open(path, "rb", opener=_open_nonblocking) as stream:
            os.set_blocking(stream.fileno(), True)
            data = stream.read(limit + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError([Problem(str(path), 0, 0, f"cannot be read: {reason}")]) from None
    except ValueError as error:  # a NUL character in the name
        raise ConfigError([Problem(str(path), 0, 0, f"cannot be read: {error}")]) from error
    if len(data) > limit:
        raise ConfigError([Problem(str(path), 0, 0, f"is larger than {limit >> 20} MiB")])
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        message = f"is not UTF-8 text: byte 0x{data[error.start]:02x}"
        raise ConfigError([Problem(str(path), line, column, message)]) from None


def _open_nonblocking(path: str, flags: int) -> int:
    """Open without blocking on a named pipe without writers."""
    return os.open(path, flags | os.O_NONBLOCK)


def is_file(path: Path) -> bool:
    """Return whether an accessible file exists; False for invalid names."""
    try:
        return path.is_file()
    except OSError:
        return False


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Remove duplicates, and sort by the first problem of each file, then by position."""
    unique = list(dict.fromkeys(problems))
    files: dict[str, int] = {}
    for problem in unique:
        files.setdefault(problem.file, len(files))
    return sorted(unique, key=lambda problem: (files[problem.file], problem.line, problem.column))
