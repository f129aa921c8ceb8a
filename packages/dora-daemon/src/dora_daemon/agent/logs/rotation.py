"""Parts of a rotated log file that were begun since the last read.

They are identified by inode, because a rotation renames them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO


def open_parts_after(path: Path, read: BinaryIO) -> list[BinaryIO]:
    """Open the parts younger than ``read``, oldest first; ``path`` names the current one.

    All parts are opened if ``read`` was rotated away. The caller closes them.
    """
    known = os.fstat(read.fileno()).st_ino
    opened: dict[int, BinaryIO] = {}
    for name in _names(path):
        try:
            part = open(name, "rb")  # noqa: SIM115 - closed by the caller
        except FileNotFoundError:
            continue  # in the middle of a rotation
        inode = os.fstat(part.fileno()).st_ino
        if inode == known or inode in opened:
            part.close()
            if inode == known:
                break
        else:
            opened[inode] = part
    return sorted(opened.values(), key=lambda part: os.fstat(part.fileno()).st_mtime_ns)


def numbers(path: Path) -> list[int]:
    """Return the numbers of the rotated parts, youngest (1) first."""
    prefix = f"{path.name}."
    try:
        names = os.listdir(path.parent)
    except FileNotFoundError:
        return []
    found = (name[len(prefix) :] for name in names if name.startswith(prefix))
    return sorted(int(number) for number in found if number.isdigit())


def _names(path: Path) -> list[Path]:
    """Return the current part, the rotated ones, and one more for a rotation meanwhile."""
    known = numbers(path)
    last = known[-1] if known else 0
    return [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, last + 2))]
