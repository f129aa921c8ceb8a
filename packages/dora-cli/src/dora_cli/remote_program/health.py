"""The health of a machine and its daemon."""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

from dora_cli.remote_program.existing_daemons import fingerprint
from dora_cli.remote_program.paths import (
    command_line,
    daemon_log,
    daemon_secrets,
    existing,
    last_lines,
    state_dir,
    user_units,
)


def health(name: str, unit: str, pid: int | None) -> dict[str, Any]:
    """Return facts about a daemon, its service and process, and the file systems of its folders."""
    return {
        "process_state": _process_state(pid),
        "missing_program": _missing_program(pid),
        "missing_unit_program": _missing_unit_program(unit),
        "token": _fingerprint(daemon_secrets(name) / "dora-token"),
        "last_line": _last_line(daemon_log(name)),
        "state_mount": _mount(state_dir()),
        "program_mount": _mount(Path.home() / ".local" / "share" / "dora"),
    }


def _process_state(pid: int | None) -> str:
    """Return the state letter of proc(5), T for a stopped process; empty without a process."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def _missing_program(pid: int | None) -> str:
    """Return the deleted file that the process was started from; empty if it exists."""
    files = (word for word in command_line(pid)[:2] if word.startswith("/"))
    return next((word for word in files if not Path(word).exists()), "")


def _missing_unit_program(unit: str) -> str:
    """Return the service's program if it cannot be executed; empty otherwise."""
    for folder in (Path("/etc/systemd/system"), user_units()):
        with suppress(OSError, ValueError, IndexError):
            for line in (folder / f"{unit}.service").read_text().splitlines():
                if line.startswith("ExecStart="):
                    program = shlex.split(line.partition("=")[2])[0].replace("%%", "%")
                    return "" if os.access(program, os.X_OK) else program
    return ""


def _fingerprint(path: Path) -> str | None:
    with suppress(OSError):
        return fingerprint(path.read_text(errors="replace"))
    return None


def _last_line(path: Path) -> str:
    with suppress(OSError, IndexError):
        return last_lines(path, 1)[0]
    return ""


def _mount(place: Path) -> dict[str, Any]:
    """Return the file system and the permissions of a folder, which may not exist yet."""
    path = existing(place)
    flags = os.statvfs(path).f_flag
    return {
        "path": str(path),
        "mount": _mount_point(path),
        "read_only": bool(flags & os.ST_RDONLY),
        "noexec": bool(flags & os.ST_NOEXEC),
        "writable": os.access(path, os.W_OK),
    }


def _mount_point(path: Path) -> str:
    """Return the mount point of ``path``; bind mounts of the same device count too."""
    mounted = set()
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
            name = line.split()[4].decode("unicode_escape").encode("latin-1")
            mounted.add(os.fsdecode(name))
    resolved = path.resolve()
    return next((str(one) for one in (resolved, *resolved.parents) if str(one) in mounted), "/")
