"""The daemon in the background, and facts about its machine."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from dora_cluster.remote_program.existing_daemons import fingerprint
from dora_cluster.remote_program.paths import (
    command_line,
    daemon_folder,
    daemon_log,
    daemon_secrets,
    existing,
    last_lines,
    lock_holder,
    remove_empty,
    state_dir,
    unit_words,
    user_units,
    wait_for_end,
)
from dora_cluster.remote_program.protocol import RemoteProblem

_OF_LOGIN = ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY", "SSH_AUTH_SOCK")


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
        with suppress(OSError):
            for program in unit_words((folder / f"{unit}.service").read_text())[:1]:
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
        "noexec": bool(flags & getattr(os, "ST_NOEXEC", 0)),
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


def facts(name: str, unit: str, dora: str | None, coordinator: str) -> dict[str, Any]:
    """Return all facts about this machine that commands need before they change it."""
    given = _given_environment(name)
    running = _running(name)
    pid = None if running is None else running["pid"]
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "user": pwd.getpwuid(os.getuid()).pw_name,
        "uid": os.getuid(),
        "home": str(Path.home()),
        "time": time.time(),
        "free": shutil.disk_usage(existing(state_dir())).free,
        "memory": _available_memory(),
        "memory_files": hasattr(os, "memfd_create"),
        "address": _own_address(coordinator),
        "systemd": Path("/run/systemd/system").is_dir(),
        "state": str(state_dir()),
        "daemon": running,
        "environment": None if given is None else hashlib.sha256(given).hexdigest(),
        "service": Path(f"/etc/systemd/system/{unit}.service").exists(),
        "user_service": (user_units() / f"{unit}.service").exists(),
        "dora": _version(dora),
        "process_state": _process_state(pid),
        "missing_program": _missing_program(pid),
        "missing_unit_program": _missing_unit_program(unit),
        "token": _fingerprint(daemon_secrets(name) / "dora-token"),
        "last_line": _last_line(daemon_log(name)),
        "state_mount": _mount(state_dir()),
        "program_mount": _mount(Path.home() / ".local" / "share" / "dora"),
    }


def _given_environment(name: str) -> bytes | None:
    """Return the variables that the daemon was started with; None without a file of them."""
    with suppress(OSError):
        return (daemon_secrets(name) / "environment").read_bytes()
    return None


def _version(dora: str | None) -> str | None:
    """Return the version of a `dora`; None if it does not run."""
    if dora is None:
        return None
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run([dora, "--version"], capture_output=True, text=True, timeout=20)
        if done.returncode == 0:
            return done.stdout.strip().removeprefix("dora ")
    return None


def _own_address(other: str) -> str | None:
    """Return the own address on the route to another machine; sends nothing."""
    with suppress(OSError):
        kind = socket.AF_INET6 if ":" in other else socket.AF_INET
        with socket.socket(kind, socket.SOCK_DGRAM) as probe:
            probe.connect((other, 9))
            return str(probe.getsockname()[0])
    return None


def _available_memory() -> int:
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return 0


def _running(name: str) -> dict[str, Any] | None:
    """Return the running daemon of that name, which holds a lock until it has ended."""
    pid = lock_holder(daemon_folder(name) / "lock")
    if pid is None or not pid.isdigit():
        return None
    return {"pid": int(pid), "words": command_line(pid)}


def tail(name: str, lines: int) -> dict[str, Any]:
    """Return the last lines of a background daemon's log; None without a log."""
    log = daemon_log(name)
    try:
        found = last_lines(log, lines)
    except FileNotFoundError:
        return {"lines": None, "path": str(log)}
    return {"lines": found, "path": str(log)}


def prepare(name: str) -> dict[str, Any]:
    """Create the folder for the daemon's token (`dora-token`) and its `environment`."""
    folder = daemon_secrets(name)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return {"folder": str(folder)}


def start(name: str, words: list[str]) -> dict[str, Any]:
    """Start a daemon that outlives this login; its output goes to its log."""
    given: dict[str, str] = json.loads(_given_environment(name) or b"{}")
    given["CREDENTIALS_DIRECTORY"] = str(daemon_secrets(name))
    return start_detached("daemon", words, daemon_log(name), given)


def start_detached(
    what: str, words: list[str], log: Path, environ: Mapping[str, str]
) -> dict[str, Any]:
    """Start a process with additional variables; raises RemoteProblem if it ends at once."""
    log.parent.mkdir(parents=True, exist_ok=True)
    inherited = {key: text for key, text in os.environ.items() if key not in _OF_LOGIN}
    with open(log, "wb") as output:
        try:
            process = subprocess.Popen(
                words,
                cwd=Path.home(),
                env={**inherited, **environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except OSError as error:
            raise RemoteProblem(f"{words[0]} cannot be started: {error.strerror}") from None
    with suppress(subprocess.TimeoutExpired):
        code = process.wait(0.3)
        lines = "".join(f"\n  {line}" for line in last_lines(log, 20))
        raise RemoteProblem(f"the {what} ended at once with exit code {code}:{lines}")
    return {"pid": process.pid}


def stop(name: str, hand_over: bool, within: float) -> dict[str, Any]:
    """End a background daemon, with its dataflows or (``hand_over``) without."""
    found = _running(name)
    if found is None:
        return {"stopped": False}
    with suppress(ProcessLookupError):
        os.kill(found["pid"], signal.SIGUSR2 if hand_over else signal.SIGTERM)
    pid = found["pid"]
    wait_for_end("daemon", pid, lambda: (_running(name) or {}).get("pid") == pid, within)
    return {"stopped": True}


def clean(name: str, keep_state: bool) -> dict[str, Any]:
    """Remove the files of a daemon that has ended; with ``keep_state`` only its secrets."""
    if _running(name) is not None:
        raise RemoteProblem("the daemon still runs, so its files were not removed; stop it first")
    state, folder, log = state_dir(), daemon_folder(name), daemon_log(name)
    runs = state / "run"
    shutil.rmtree(daemon_secrets(name) if keep_state else folder, ignore_errors=True)
    if not keep_state:
        log.unlink(missing_ok=True)
        _remove_runs(runs)
        if not any(folder.parent.glob("*")):  # the last daemon
            for unused in ("code", "authorities"):
                shutil.rmtree(state / unused, ignore_errors=True)
    remove_empty(folder.parent, log.parent, state, state.parent, state.parent.parent)
    return {}


def _remove_runs(runs: Path) -> None:
    """Remove the folders of runners that have ended, and their parent if it is empty then.

    Starting processes hold the lock of the parent until they have locked their own folder.
    """
    lock = runs / ".lock"
    with suppress(FileNotFoundError), lock.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not os.path.samestat(os.fstat(file.fileno()), lock.stat()):
            return  # another command has removed the folder
        for path in runs.glob("[0-9]*"):
            if path.name.isdigit() and lock_holder(path / "lock") is None:
                shutil.rmtree(path, ignore_errors=True)
        if os.listdir(runs) == [".lock"]:
            lock.unlink()
            remove_empty(runs)
