"""The folder and store of a coordinator that runs as a service."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

from dora_cli.remote_program import store_copies
from dora_cli.remote_program.paths import remove_empty, remove_unused, state_dir
from dora_cli.remote_program.protocol import Commands, Problem

_OF_SERVICE = ".of-service"
"""Marker in the coordinator's folder: `uninstall` may remove the folder."""


def _folder() -> Path:
    return state_dir() / "coordinator"


def _store() -> Path:
    return _folder() / "store.sqlite3"


def copy_store(version: str) -> dict[str, Any]:
    """Copy the store; the copy's name includes the version that wrote it."""
    try:
        copy = store_copies.copy_store(_store(), version)
    except sqlite3.Error as error:
        raise Problem(f"{_store()}: the store cannot be copied: {error}") from None
    return {"copy": None if copy is None else str(copy)}


def restore_store(copy: str) -> dict[str, Any]:
    """Restore the store from a copy; its coordinator must not run."""
    store_copies.restore_store(_store(), Path(copy))
    return {}


def put_store_aside() -> dict[str, Any]:
    """Rename the store to `.old`; its coordinator must not run."""
    store = _store()
    old = store.with_name(f"{store.name}.old")
    for stale in (f"{old.name}-wal", f"{old.name}-shm", f"{store.name}-shm"):
        store.with_name(stale).unlink(missing_ok=True)
    for part in ("-wal", ""):
        with suppress(FileNotFoundError):
            store.with_name(f"{store.name}{part}").replace(old.with_name(f"{old.name}{part}"))
    return {}


def claim() -> dict[str, Any]:
    """Create and mark the coordinator's folder, unless the user has one already."""
    folder = _folder()
    if not folder.exists():
        folder.mkdir(parents=True)
        (folder / _OF_SERVICE).touch()
    return {}


def forget(addr: str, port: int) -> dict[str, Any]:
    """Remove the folder of a coordinator that has ended, if it is marked, and its tokens."""
    if (_folder() / _OF_SERVICE).exists():
        shutil.rmtree(_folder(), ignore_errors=True)
        tokens = Path.home() / ".config" / "dora" / "tokens"
        for host in ("127.0.0.1", "localhost", f"[{addr}]" if ":" in addr else addr):
            (tokens / f"{host}:{port}").unlink(missing_ok=True)
        remove_unused(tokens)
        state = state_dir()
        remove_empty(state, state.parent, state.parent.parent)
    return {}


COMMANDS: Commands = {
    "copy_store": copy_store,
    "restore_store": restore_store,
    "put_store_aside": put_store_aside,
    "claim": claim,
    "forget": forget,
}
