"""Room on disks: compared with what is to be written before anything is written."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from dora_config.errors import DoraError

SPARE: Final = 16 << 20
"""Bytes that stay free: a full disk harms more than the transfer that filled it."""


class DiskFull(DoraError):
    """What is to be written does not fit; ``str()`` names the place, its room and the need."""

    def __init__(self, place: str, free: int, needed: int) -> None:
        super().__init__(
            f"{place}: its disk has {show_size(free)} free, {show_size(needed)} are needed "
            f"(and {show_size(SPARE)} stay free); make room there"
        )


def require_room(wanted: Iterable[tuple[Path, int]]) -> None:
    """Raises DiskFull unless all of it fits: bytes by the folder they are written below, which
    need not exist yet. Folders on one disk share its room.
    """
    needs: dict[int, tuple[Path, int]] = {}
    for folder, size in wanted:
        if size > 0:
            device = existing(folder).stat().st_dev
            first, before = needs.get(device, (folder, 0))
            needs[device] = first, before + size
    for folder, size in needs.values():
        free = free_space(folder)
        if size + SPARE > free:
            raise DiskFull(str(folder), free, size)


def free_space(folder: Path) -> int:
    """Bytes that can be written below ``folder``, which need not exist yet."""
    return shutil.disk_usage(existing(folder)).free


def existing(path: Path) -> Path:
    """``path``, or the nearest folder above it that exists."""
    return next(one for one in (path, *path.parents) if one.exists())


def show_size(size: int) -> str:
    """A size for people: `12.3 KiB`, `4.0 MiB`, `2.1 GiB`."""
    for unit, shift in (("GiB", 30), ("MiB", 20)):
        if size >= 1 << shift:
            return f"{size / (1 << shift):.1f} {unit}"
    return f"{size / 1024:.1f} KiB"
