"""Copies of a coordinator's store, named after the versions that wrote them."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

KEPT_COPIES = 3


def copy_store(store: Path, version: str) -> Path | None:
    """Return a copy, None if the store does not exist; raises sqlite3.Error and OSError."""
    if not store.exists():
        return None
    copy = store.with_name(f"{store.name}.of-{version}")
    fresh = copy.with_name(f".{copy.name}.new")
    with _new_file(fresh):
        with closing(sqlite3.connect(store)) as source, closing(sqlite3.connect(fresh)) as target:
            source.backup(target)
        fresh.replace(copy)
    copies = sorted(store.parent.glob(f"{store.name}.of-*"), key=lambda path: path.stat().st_mtime)
    for path in copies[:-KEPT_COPIES]:
        path.unlink()
    return copy


def restore_store(store: Path, copy: Path) -> None:
    """Replace the store by a copy; its coordinator must not run. Raises OSError."""
    fresh = store.with_name(f".{store.name}.new")
    with _new_file(fresh):
        shutil.copyfile(copy, fresh)
        for part in ("-wal", "-shm"):
            store.with_name(f"{store.name}{part}").unlink(missing_ok=True)
        fresh.replace(store)


@contextmanager
def _new_file(path: Path) -> Iterator[None]:
    """Create an empty file that only its owner can read; remove it if the block fails."""
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise
