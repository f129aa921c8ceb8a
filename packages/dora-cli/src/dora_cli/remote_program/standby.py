"""The copy of the coordinator's state on this machine, and the coordinator that takes over."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from dora_cli.remote_program.daemon import start_detached, wait_for_end
from dora_cli.remote_program.paths import daemon_folder, lock_holder, state_dir

END_TIMEOUT = 20.0
_HEAD = ("authority", "epoch", "machine", "number")
"""What is not encrypted of a copy."""


def _known(name: str) -> Path:
    return daemon_folder(name) / "coordinators.json"


def _copy(name: str) -> Path:
    return daemon_folder(name) / "coordinator-copy.json"


def survey(name: str) -> dict[str, Any]:
    """Return which coordinator the daemon obeys, and the copy that it keeps, unread."""
    known, copy = _read(_known(name)), _read(_copy(name))
    epoch, machine = _rank(known)
    found = {
        "authority": known.get("authority", ""),
        "epoch": epoch,
        "machine": machine,
        "copy": None,
    }
    if copy.keys() >= set(_HEAD):
        age = max(0.0, time.time() - _copy(name).stat().st_mtime)
        found["copy"] = {**{key: copy[key] for key in _HEAD}, "age": age}
    return found


def _rank(known: dict[str, Any]) -> tuple[int, str]:
    """Return the order of the coordinator that the daemon obeys."""
    highest = known.get("highest", {})
    return highest.get("epoch", 0), highest.get("machine", "")


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
    """Let the daemon obey another coordinator, unless it has seen one of a higher rank."""
    path = _known(name)
    before = _read(path)
    same = before.get("authority", known["authority"]) == known["authority"]
    if path.parent.is_dir() and same and _rank(before) <= _rank(known):
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_text(json.dumps(known))
        fresh.replace(path)
    return {}


def start(words: list[str], token: str) -> dict[str, Any]:
    """Start a coordinator that outlives this login; its output goes to its log."""
    given = state_dir() / "coordinator" / "given"
    given.mkdir(parents=True, exist_ok=True)
    fresh = given / "dora-token.new"
    fresh.write_text(f"{token}\n")
    fresh.replace(given / "dora-token")
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
