"""Folder and store of a coordinator, its copy on a standby, and the start of a promoted one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from dora_cluster.remote_program.daemon import start_detached
from dora_cluster.remote_program.paths import (
    daemon_folder,
    lock_holder,
    remove_empty,
    remove_unused,
    state_dir,
    wait_for_end,
)
from dora_cluster.remote_program.protocol import RemoteProblem
from dora_config.atomic_write import write_file

_OF_SERVICE = ".of-service"
"""Marker in the coordinator's folder: `uninstall` may remove the folder."""
KEPT_COPIES = 3
"""Newest copies of a coordinator's state that a machine keeps; older ones are removed."""


END_TIMEOUT = 20.0
"""Seconds from SIGTERM to the end of the coordinator."""
_HEAD = ("authority", "epoch", "machine", "number")
"""Unencrypted fields of a copy."""


def _known(name: str) -> Path:
    return daemon_folder(name) / "coordinators.json"


def _copy(name: str) -> Path:
    return daemon_folder(name) / "coordinator-copy.json"


def survey(name: str, port: int) -> dict[str, Any]:
    """Return the claim of the coordinator that the daemon obeys, the head of its copy, and the
    store of a coordinator on this port here.
    """
    found: dict[str, Any] = {
        "claim": _read(_known(name)).get("claim"),
        "copy": None,
        **own_store(port),
    }
    copy = _read(_copy(name))
    if copy.keys() >= set(_HEAD):
        age = max(0.0, time.time() - _copy(name).stat().st_mtime)
        found["copy"] = {**{key: copy[key] for key in _HEAD}, "age": age}
    return found


def own_store(port: int) -> dict[str, Any]:
    """Return the claim of the coordinator of this account, and the number of its changes."""
    record, file = _read(_folder() / f"succession-{port}.json"), _store()
    if not record or not file.exists():
        return {"store": None}
    try:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
            (number,) = db.execute("SELECT number FROM change").fetchone()
    except (sqlite3.Error, TypeError):
        return {"store": None}
    return {"store": {"claim": record.get("claim"), "number": number}}


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads(path.read_bytes())
        if isinstance(found, dict):
            return found
    return {}


def read(name: str) -> dict[str, Any]:
    """Return the encrypted copy."""
    return {"copy": _read(_copy(name))}


def follow(name: str, known: dict[str, Any]) -> dict[str, Any]:
    """Let the daemon obey another coordinator; it verifies the claim.

    A daemon keeps a higher claim that it has seen, and what it stored for another cluster.
    """
    path = _known(name)
    same = _read(path).get("authority", known["authority"]) == known["authority"]
    if path.parent.is_dir() and same:
        write_file(path, json.dumps(known))
    return {}


def start(words: list[str], token: str) -> dict[str, Any]:
    """Start a coordinator that outlives this login; its output goes to its log."""
    given = state_dir() / "coordinator" / "given"
    given.mkdir(parents=True, exist_ok=True)
    write_file(given / "dora-token", f"{token}\n")
    log = state_dir() / "log" / "coordinator.log"
    environ = {"CREDENTIALS_DIRECTORY": str(given)}
    return {**start_detached("coordinator", words, log, environ), "log": str(log)}


def end() -> dict[str, Any]:
    """End the coordinator of this account; nodes run on."""
    lock = state_dir() / "coordinator" / "store.sqlite3.lock"
    pid = lock_holder(lock)
    if pid is None or not pid.isdigit():
        return {"ended": False}
    with suppress(ProcessLookupError):
        os.kill(int(pid), signal.SIGTERM)
    wait_for_end("coordinator", int(pid), lambda: lock_holder(lock) == pid, END_TIMEOUT)
    return {"ended": True}


def undo() -> dict[str, Any]:
    """End a promoted coordinator, and restore the previous files."""
    end()
    folder, earlier = _folder(), state_dir() / "coordinator.earlier"
    if earlier.exists():
        with suppress(FileNotFoundError):
            (folder / "files").replace(earlier / "files")
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(FileNotFoundError):
        earlier.replace(folder)
    return {}


def _folder() -> Path:
    return state_dir() / "coordinator"


def _store() -> Path:
    return _folder() / "store.sqlite3"


def copy_store(version: str, store: str = "") -> dict[str, Any]:
    """Copy a store; the copy's name includes the version that wrote it.

    ``store``: its file; empty: that of the service.
    """
    file = Path(store) if store else _store()
    if not file.exists():
        return {"copy": None}
    copy = file.with_name(f"{file.name}.of-{version}")
    fresh = copy.with_name(f".{copy.name}.new")
    with _new_file(fresh):
        try:
            with (
                closing(sqlite3.connect(file)) as source,
                closing(sqlite3.connect(fresh)) as target,
            ):
                source.backup(target)
        except sqlite3.Error as error:
            raise RemoteProblem(f"{file}: the store cannot be copied: {error}") from None
        fresh.replace(copy)
    copies = sorted(file.parent.glob(f"{file.name}.of-*"), key=lambda path: path.stat().st_mtime)
    for path in copies[:-KEPT_COPIES]:
        path.unlink()
    return {"copy": str(copy)}


def restore_store(copy: str, store: str = "") -> dict[str, Any]:
    """Restore a store from a copy; its coordinator must not run."""
    file = Path(store) if store else _store()
    fresh = file.with_name(f".{file.name}.new")
    with _new_file(fresh):
        shutil.copyfile(copy, fresh)
        for part in ("-wal", "-shm"):
            file.with_name(f"{file.name}{part}").unlink(missing_ok=True)
        fresh.replace(file)
    return {}


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


def put_store_aside() -> dict[str, Any]:
    """Rename the store to `.old`; its coordinator must not run, and gets a higher claim."""
    store = _store()
    old = store.with_name(f"{store.name}.old")
    for stale in (f"{old.name}-wal", f"{old.name}-shm", f"{store.name}-shm"):
        store.with_name(stale).unlink(missing_ok=True)
    for part in ("-wal", ""):
        with suppress(FileNotFoundError):
            store.with_name(f"{store.name}{part}").replace(old.with_name(f"{old.name}{part}"))
    for path in _folder().glob("succession-*.json"):
        claims = [one for one in (_read(path).get(key) for key in ("claim", "successor")) if one]
        if claims:
            epoch = max(int(one["epoch"]) for one in claims) + 1
            # The coordinator signs the claim at its start.
            path.write_text(json.dumps({"claim": {**claims[0], "epoch": epoch}}))
    return {}


def claim() -> dict[str, Any]:
    """Create and mark the coordinator's folder, unless the user has one already."""
    folder = _folder()
    if not folder.exists():
        folder.mkdir(parents=True)
        (folder / _OF_SERVICE).touch()
    return {}


def remove(addr: str, port: int) -> dict[str, Any]:
    """End and remove a coordinator that `dora cluster` has put here."""
    if (_folder() / _OF_SERVICE).exists():
        end()
    return forget(addr, port)


def forget(addr: str, port: int) -> dict[str, Any]:
    """Remove the folder of a coordinator that has ended, if it is marked, and its tokens."""
    if (_folder() / _OF_SERVICE).exists():
        shutil.rmtree(_folder(), ignore_errors=True)
        shutil.rmtree(state_dir() / "coordinator.earlier", ignore_errors=True)
        tokens = Path.home() / ".config" / "dora" / "tokens"
        for host in ("127.0.0.1", "localhost", f"[{addr}]" if ":" in addr else addr):
            (tokens / f"{host}:{port}").unlink(missing_ok=True)
        remove_unused(tokens)
        state = state_dir()
        remove_empty(state, state.parent, state.parent.parent)
    return {}
