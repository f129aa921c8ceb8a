"""Check for free disk space before files are written."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from dora_config.errors import DoraError
from dora_config.yaml.quantities import show_size

SPARE_BYTES: Final = 16 << 20
"""Bytes that stay free, since a full disk breaks more than one transfer."""


class DiskFull(DoraError):
    """The files do not fit; ``str()`` names the folder, the free and the needed bytes."""

    def __init__(self, place: str, free: int, needed: int) -> None:
        super().__init__(
            f"{place}: its disk has {show_size(free)} free, {show_size(needed)} are needed "
            f"(plus a reserve of {show_size(SPARE_BYTES)}); make room there"
        )


def require_room(wanted: Iterable[tuple[Path, int]]) -> None:
    """Raise `DiskFull` unless the bytes fit that are written below each folder.

    The folders need not exist yet; folders on one disk share its space.
    """
    needs: dict[int, tuple[Path, int]] = {}
    for folder, size in wanted:
        if size > 0:
            device = existing(folder).stat().st_dev
            first, before = needs.get(device, (folder, 0))
            needs[device] = first, before + size
    for folder, size in needs.values():
        free = free_space(folder)
        if size + SPARE_BYTES > free:
            raise DiskFull(str(folder), free, size)


def free_space(folder: Path) -> int:
    """Return the bytes that can be written below ``folder``, which need not exist yet."""
    return shutil.disk_usage(existing(folder)).free


def existing(path: Path) -> Path:
    """Return ``path``, or its nearest ancestor that exists."""
    return next(one for one in (path, *path.parents) if one.exists())
