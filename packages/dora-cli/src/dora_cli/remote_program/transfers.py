"""Files that arrive in several attempts."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

ABANDONED = 24 * 3600.0
"""Seconds after which an unfinished transfer or tree is removed."""
_SUFFIX = ".part"


def begin_transfer(folder: Path, name: str) -> tuple[Path, int]:
    """Create the file of this transfer, with the bytes that earlier ones have sent; return both.

    Transfers with the same ``name`` have the same content. The writer of an earlier one may still
    run, so its file is copied, and kept while it is open.
    """
    folder.mkdir(parents=True, exist_ok=True)
    opened = set(_open_files())
    begun = sorted(folder.glob(f"{name}.*{_SUFFIX}"), key=_size)
    handle, path = tempfile.mkstemp(_SUFFIX, f"{name}.", folder)
    with os.fdopen(handle, "wb") as file, suppress(FileNotFoundError):
        if begun:
            with begun[-1].open("rb") as before:
                shutil.copyfileobj(before, file)
    old = [one for one in folder.glob(f"*{_SUFFIX}") if _age(one) > ABANDONED]
    for one in (*begun, *old):
        if os.path.realpath(one) not in opened:
            one.unlink(missing_ok=True)
    return Path(path), _size(Path(path))


def _open_files() -> Iterator[str]:
    """Yield the paths of the files that processes of this user have open."""
    for handles in Path("/proc").glob("[0-9]*/fd"):
        with suppress(OSError):
            for handle in os.scandir(handles):
                with suppress(OSError):
                    yield os.readlink(handle.path)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
