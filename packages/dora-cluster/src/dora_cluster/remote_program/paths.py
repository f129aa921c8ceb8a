"""Folders of dora on this machine, and its processes."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dora_cluster.remote_program.protocol import RemoteProblem

_TAIL_BYTES = 1 << 16
"""Bytes at the end of a file that are read."""


def state_dir() -> Path:
    """Return the user's folder for state, which may not exist."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "state") / "dora"


def daemon_folder(name: str) -> Path:
    """Return the state folder of a daemon."""
    return state_dir() / "daemon" / name


def daemon_secrets(name: str) -> Path:
    """Return the folder with the daemon's token (`dora-token`) and its `environment`."""
    return daemon_folder(name) / "given"


def daemon_log(name: str) -> Path:
    """Return the output file of a background daemon."""
    return state_dir() / "log" / f"daemon-{name}.log"


def user_units() -> Path:
    """Return the folder with the user's systemd units."""
    return Path.home() / ".config" / "systemd" / "user"


def unit_words(text: str) -> list[str]:
    """Return the command that a unit file starts; empty if it has none, or an invalid one."""
    found = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)
    with suppress(ValueError):  # edited by hand
        return shlex.split(found[1].replace("%%", "%").replace("$$", "$")) if found else []
    return []


def existing(path: Path) -> Path:
    """Return ``path`` or the closest folder above it that exists."""
    return next(one for one in (path, *path.parents) if one.exists())


def remove_empty(*folders: Path) -> None:
    """Remove those folders that are empty, in this order."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def remove_unused(folder: Path) -> None:
    """Remove a folder and those above it as far as they are empty and below the home."""
    while Path.home() in folder.parents:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent


def archive_folder() -> Path:
    """Return the folder in which archives are received."""
    return Path.home() / ".cache" / "dora" / "archives"


def lock_holder(path: Path) -> str | None:
    """Return the text of the holder of a lock file; None if the lock is free."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(handle, 32, 0).decode(errors="replace").strip()
    finally:
        os.close(handle)
    return None


def last_lines(path: Path, count: int) -> list[str]:
    """Return the last lines of a file, at most 64 KiB; raises OSError."""
    with path.open("rb") as file:
        begin = max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES)
        file.seek(begin)
        lines = file.read(_TAIL_BYTES).decode(errors="replace").splitlines()
    if begin and len(lines) > 1:
        del lines[0]  # the first line is incomplete
    return lines[-count:] if count else []


def command_line(pid: int | str | None) -> list[str]:
    """Return the words that started a process; empty if it does not exist."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
        return [os.fsdecode(word) for word in words]
    return []


def wait_for_end(
    program: str, pid: int, runs: Callable[[], bool], within: float, there: str = "there"
) -> None:
    """Wait until a process has ended; raises RemoteProblem after ``within`` seconds."""
    deadline = time.monotonic() + within
    while runs():
        if time.monotonic() > deadline:
            raise RemoteProblem(
                f"the {program} (process {pid}) did not end within {within:g} s; {there}: "
                f"kill -KILL {pid}"
            )
        time.sleep(0.05)
