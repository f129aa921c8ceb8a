"""Health of a machine and its daemon; runs there as ``python3 -I - health JSON``.

Uses only the standard library. Prints one line of JSON; on failure ``{"problem": ...}`` with exit
code 1.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any


def main() -> int:
    try:
        answer = health(**json.loads(sys.argv[2]))
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        answer = {"problem": f"{named}{error.strerror or error}"}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 1 if "problem" in answer else 0


def health(name: str, unit: str, pid: int | None) -> dict[str, Any]:
    """Return facts about a daemon, its service and process, and the file systems of its folders."""
    return {
        "process_state": _process_state(pid),
        "missing_program": _missing_program(pid),
        "missing_unit_program": _missing_unit_program(unit),
        "token": _digest(_state() / "daemon" / name / "given" / "dora-token"),
        "last_line": _last_line(_state() / "log" / f"daemon-{name}.log"),
        "state_mount": _mount(_state()),
        "program_mount": _mount(Path.home() / ".local" / "share" / "dora"),
    }


def _state() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or ""
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "state") / "dora"


def _process_state(pid: int | None) -> str:
    """Return the state letter of proc(5), T for a stopped process; empty without a process."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def _missing_program(pid: int | None) -> str:
    """Return the deleted file that the process was started from; empty if it exists."""
    words: list[str] = []
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    files = [word for word in words[:2] if word.startswith("/")]
    return next((word for word in files if not Path(word).exists()), "")


def _missing_unit_program(unit: str) -> str:
    """Return the service's program if it cannot be executed; empty otherwise."""
    user_units = Path.home() / ".config" / "systemd" / "user"
    for folder in (Path("/etc/systemd/system"), user_units):
        with suppress(OSError, ValueError, IndexError):
            for line in (folder / f"{unit}.service").read_text().splitlines():
                if line.startswith("ExecStart="):
                    program = shlex.split(line.partition("=")[2])[0].replace("%%", "%")
                    return "" if os.access(program, os.X_OK) else program
    return ""


def _digest(path: Path) -> str | None:
    """Return the SHA-256 of the secret in `dora1.HASH.SECRET`, or of an old token as it is."""
    with suppress(OSError):
        token = path.read_bytes().strip()
        secret = token.split(b".", 2)[-1] if token.startswith(b"dora1.") else token
        return hashlib.sha256(secret).hexdigest()
    return None


def _last_line(path: Path) -> str:
    with suppress(OSError, IndexError):
        return path.read_text(errors="replace").strip().splitlines()[-1]
    return ""


def _mount(place: Path) -> dict[str, Any]:
    """Return the file system and the permissions of a folder, which may not exist yet."""
    path = next(one for one in (place, *place.parents) if one.exists())
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


if __name__ == "__main__":
    sys.exit(main())
