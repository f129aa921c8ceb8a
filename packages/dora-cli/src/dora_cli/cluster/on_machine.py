"""Commands of `dora cluster` on a machine; runs there as ``python3 -I - COMMAND JSON``.

Uses only the standard library. Prints one line of JSON; on failure ``{"problem": ...}`` with exit
code 1. The arguments contain no secrets: a token comes as a file.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import pwd
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

ANSWER_TIMEOUT = 3.0
PINGS = 5
KEPT_COPIES = 3
OF_SERVICE = ".of-service"
"""Marker in the coordinator's folder: `uninstall` may remove the folder."""
SECRETS = "given"
"""Folder with the daemon's token and environment."""


class Problem(Exception):
    """A message for the user."""


def main() -> int:
    command, text = sys.argv[1:3]
    os.umask(0o077)
    try:
        answer = COMMANDS[command](**json.loads(text))
    except Problem as problem:
        answer = {"problem": str(problem)}
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        answer = {"problem": f"{named}{error.strerror or error}"}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 1 if "problem" in answer else 0


def _state() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or ""
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "state") / "dora"


def _log(name: str) -> Path:
    return _state() / "log" / f"daemon-{name}.log"


# ---------------------------------------------------------------------------------- facts


def facts(name: str, unit: str, dora: str | None, coordinator: str) -> dict[str, Any]:
    """Return all facts about this machine that commands need before they change it."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "user": pwd.getpwuid(os.getuid()).pw_name,
        "uid": os.getuid(),
        "home": str(Path.home()),
        "time": time.time(),
        "free": shutil.disk_usage(_existing(_state())).free,
        "memory": _available_memory(),
        "memory_files": hasattr(os, "memfd_create"),
        "address": _own_address(coordinator),
        "systemd": Path("/run/systemd/system").is_dir(),
        "state": str(_state()),
        "daemon": _running(name),
        "environment": _sha256(_given_environment(name)),
        "service": Path(f"/etc/systemd/system/{unit}.service").exists(),
        "user_service": _user_unit(unit).exists(),
        "dora": _version(dora),
    }


def _sha256(content: bytes | None) -> str | None:
    return None if content is None else hashlib.sha256(content).hexdigest()


def _given_environment(name: str) -> bytes | None:
    """Return the variables that the daemon was started with; None without a file of them."""
    with suppress(OSError):
        return (_state() / "daemon" / name / SECRETS / "environment").read_bytes()
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


def _user_unit(unit: str) -> Path:
    return Path.home() / ".config" / "systemd" / "user" / f"{unit}.service"


def _existing(path: Path) -> Path:
    return next(one for one in (path, *path.parents) if one.exists())


def _available_memory() -> int:
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return 0


def _running(name: str) -> dict[str, Any] | None:
    """Return the running daemon of that name, which holds a lock until it has ended."""
    path = _state() / "daemon" / name / "lock"
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        text = os.pread(handle, 32, 0).decode(errors="replace").strip()
    finally:
        os.close(handle)
    if not text.isdigit():
        return None
    words: list[str] = []
    with suppress(OSError):
        raw = Path(f"/proc/{text}/cmdline").read_bytes()
        words = raw.decode(errors="replace").split("\0")[:-1]
    return {"pid": int(text), "words": words}


def tail(name: str, lines: int) -> dict[str, Any]:
    """Return the last lines of a background daemon's log."""
    try:
        text = _log(name).read_text(errors="replace")
    except FileNotFoundError:
        return {"lines": None, "path": str(_log(name))}
    return {"lines": text.splitlines()[-lines:] if lines else [], "path": str(_log(name))}


# ---------------------------------------------------------------------------------- the daemon


def prepare(name: str) -> dict[str, Any]:
    """Create the folder for the daemon's token (`dora-token`) and its `environment`."""
    folder = _state() / "daemon" / name / SECRETS
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return {"folder": str(folder)}


def start(name: str, words: list[str]) -> dict[str, Any]:
    """Start a daemon that outlives this login; its output goes to its log."""
    log = _log(name)
    log.parent.mkdir(parents=True, exist_ok=True)
    folder = _state() / "daemon" / name / SECRETS
    given = _given_environment(name)
    more: dict[str, str] = json.loads(given) if given is not None else {}
    environment = {**os.environ, **more, "CREDENTIALS_DIRECTORY": str(folder)}
    for gone in {"SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY", "SSH_AUTH_SOCK"} - more.keys():
        environment.pop(gone, None)
    with open(log, "wb") as output:
        try:
            process = subprocess.Popen(
                words,
                cwd=Path.home(),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except OSError as error:
            raise Problem(f"{words[0]} cannot be started: {error.strerror}") from None
    with suppress(subprocess.TimeoutExpired):
        code = process.wait(0.3)
        last = log.read_text(errors="replace").strip().splitlines()[-20:]
        lines = "".join(f"\n  {line}" for line in last)
        raise Problem(f"the daemon ended at once with exit code {code}:{lines}")
    return {"pid": process.pid}


def stop(name: str, hand_over: bool, within: float) -> dict[str, Any]:
    """End a background daemon, with its dataflows or (``hand_over``) without."""
    found = _running(name)
    if found is None:
        return {"stopped": False}
    os.kill(found["pid"], signal.SIGUSR2 if hand_over else signal.SIGTERM)
    deadline = time.monotonic() + within
    while (now := _running(name)) is not None and now["pid"] == found["pid"]:
        if time.monotonic() > deadline:
            raise Problem(
                f"the daemon (process {found['pid']}) did not end within {within:g} s; there: "
                f"kill -KILL {found['pid']}"
            )
        time.sleep(0.05)
    return {"stopped": True}


def clean(name: str, keep_state: bool) -> dict[str, Any]:
    """Remove the files of a daemon that has ended; with ``keep_state`` only its secrets."""
    if _running(name) is not None:
        raise Problem("the daemon still runs, so its files were not removed; stop it first")
    folder = _state() / "daemon" / name
    for path in (folder / SECRETS,) if keep_state else (folder,):
        shutil.rmtree(path, ignore_errors=True)
    if not keep_state:
        _log(name).unlink(missing_ok=True)
        for number in _numbered(_state() / "run"):
            shutil.rmtree(number, ignore_errors=True)
        (_state() / "run" / ".lock").unlink(missing_ok=True)
        if not any(
            folder.parent.glob("*")
        ):  # it was the last daemon: remove the code that was sent
            shutil.rmtree(_state() / "code", ignore_errors=True)
    state = _state()
    for path in (folder.parent, _log(name).parent, state / "run", state, state.parent):
        with suppress(OSError):
            path.rmdir()  # only what is empty
    with suppress(OSError):
        state.parent.parent.rmdir()
    return {}


def _numbered(root: Path) -> list[Path]:
    """Return the folders of runners that have ended and so hold no lock."""
    found = []
    with suppress(OSError):
        for path in root.iterdir():
            if path.name.isdigit() and not _is_locked(path / "lock"):
                found.append(path)
    return found


def _is_locked(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


# ---------------------------------------------------------------------------------- the store


def _store() -> Path:
    """Return the store of a coordinator that runs as a service."""
    return _state() / "coordinator" / "store.sqlite3"


def copy_store(version: str) -> dict[str, Any]:
    """Copy the coordinator's store; the copy's name includes the version that wrote it."""
    store = _store()
    if not store.exists():
        return {"copy": None}
    copy = store.with_name(f"{store.name}.of-{version}")
    fresh = copy.with_name(f".{copy.name}.new")
    fresh.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(store)) as source, closing(sqlite3.connect(fresh)) as target:
            source.backup(target)
    except sqlite3.Error as error:
        raise Problem(f"{store}: the store cannot be copied: {error}") from None
    fresh.replace(copy)
    copies = sorted(store.parent.glob(f"{store.name}.of-*"), key=lambda path: path.stat().st_mtime)
    for path in copies[:-KEPT_COPIES]:
        path.unlink()
    return {"copy": str(copy)}


def restore_store(copy: str) -> dict[str, Any]:
    """Restore the store from a copy; its coordinator must not run."""
    store = _store()
    fresh = store.with_name(f".{store.name}.new")
    shutil.copyfile(copy, fresh)
    for part in ("-wal", "-shm"):
        store.with_name(f"{store.name}{part}").unlink(missing_ok=True)
    fresh.replace(store)
    return {}


def put_store_aside() -> dict[str, Any]:
    """Rename the store to `.old`; its coordinator must not run."""
    store = _store()
    old = store.with_name(f"{store.name}.old")
    for stale in (f"{old.name}-wal", f"{old.name}-shm", f"{store.name}-shm"):
        store.with_name(stale).unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        store.with_name(f"{store.name}-wal").replace(old.with_name(f"{old.name}-wal"))
    with suppress(FileNotFoundError):
        store.replace(old)
    return {}


def claim_coordinator() -> dict[str, Any]:
    """Create and mark the coordinator's folder, unless the user has one already."""
    folder = _state() / "coordinator"
    if not folder.exists():
        folder.mkdir(parents=True)
        (folder / OF_SERVICE).touch()
    return {}


def forget_coordinator() -> dict[str, Any]:
    """Remove the folder of a coordinator that has ended, if it is marked."""
    if not (_state() / "coordinator" / OF_SERVICE).exists():
        return {}
    shutil.rmtree(_state() / "coordinator", ignore_errors=True)
    for path in (_state(), _state().parent, _state().parent.parent):
        with suppress(OSError):
            path.rmdir()  # only what is empty
    return {}


# ---------------------------------------------------------------------------------- the network


def reach(host: str, port: int) -> dict[str, Any]:
    """Connect to an address; return how long that took, or why it failed."""
    begin = time.monotonic()
    try:
        socket.create_connection((host, port), ANSWER_TIMEOUT).close()
    except OSError as error:
        return {"reached": False, "reason": _why(error)}
    return {"reached": True, "seconds": time.monotonic() - begin}


def _why(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {ANSWER_TIMEOUT:g} s (a firewall?)"
    return str(error.strerror or error)


def answer(ports: list[int], seconds: float) -> dict[str, Any]:
    """Answer pings of other machines on the first free port for some seconds."""
    listener = _listen(ports)
    sys.stdout.write(json.dumps({"port": listener.getsockname()[1]}) + "\n")
    sys.stdout.flush()
    deadline = time.monotonic() + seconds
    events = select.poll()
    events.register(listener, select.POLLIN)
    events.register(sys.stdout, 0)  # an error there: the connection was closed
    with listener:
        while (left := deadline - time.monotonic()) > 0:
            ready = dict(events.poll(left * 1000))
            if sys.stdout.fileno() in ready:
                break
            if ready:
                link, _ = listener.accept()
                threading.Thread(target=_echo, args=(link,), daemon=True).start()
    return {}


def _listen(ports: list[int]) -> socket.socket:
    first, last = ports
    for port in range(first, last + 1):
        with suppress(OSError, ValueError):  # without IPv6
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        with suppress(OSError):
            return socket.create_server(("", port), family=socket.AF_INET)
    raise Problem(f"no port from {first} to {last} is free for data links")


def _echo(link: socket.socket) -> None:
    with link, suppress(OSError):
        link.settimeout(ANSWER_TIMEOUT)
        while link.recv(1):
            link.sendall(f"{time.time():020.6f}".encode())


def ping(targets: list[list[Any]]) -> dict[str, Any]:
    """Return median round trip and clock difference for each (name, host, port), or a reason."""
    found: dict[str, Any] = {}

    def measure(name: str, host: str, port: int) -> None:
        try:
            found[name] = _measure(host, port)
        except OSError as error:
            found[name] = {"reason": _why(error)}

    threads = [threading.Thread(target=measure, args=tuple(target)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"pings": found}


def _measure(host: str, port: int) -> dict[str, float]:
    with socket.create_connection((host, port), ANSWER_TIMEOUT) as link:
        link.settimeout(ANSWER_TIMEOUT)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        trips = []
        for _ in range(PINGS):
            before, begin = time.time(), time.monotonic()
            link.sendall(b".")
            theirs = b""
            while len(theirs) < 20:
                piece = link.recv(20 - len(theirs))
                if not piece:
                    raise OSError("the connection was closed")
                theirs += piece
            trip = time.monotonic() - begin
            trips.append((trip, float(theirs) - before - trip / 2))
    trips.sort()
    return {"seconds": trips[len(trips) // 2][0], "clock": trips[0][1]}


COMMANDS: dict[str, Callable[..., dict[str, Any]]] = {
    "facts": facts,
    "tail": tail,
    "prepare": prepare,
    "start": start,
    "stop": stop,
    "clean": clean,
    "claim_coordinator": claim_coordinator,
    "copy_store": copy_store,
    "restore_store": restore_store,
    "put_store_aside": put_store_aside,
    "forget_coordinator": forget_coordinator,
    "reach": reach,
    "answer": answer,
    "ping": ping,
}

if __name__ == "__main__":
    sys.exit(main())
