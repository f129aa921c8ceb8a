"""Surveys the daemons of a machine; a token appears as its fingerprint only."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import re
import signal
import time
from argparse import ArgumentError, ArgumentParser
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from dora_cluster.remote_program.paths import (
    command_line,
    daemon_folder,
    unit_words,
    user_units,
    wait_for_end,
)
from dora_config.access_token import Token
from dora_config.atomic_write import write_file

LOOPBACK = ("127.0.0.1", "::1", "localhost")
DEFAULT_PORT = "6013"
DEFAULT_LISTEN_PORT = 53291
"""Default of `dora daemon --local-listen-port`."""
OWNER = "owner.json"
_UNITS = "dora-daemon-*.service"

_OPTIONS = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
_OPTIONS.add_argument("--machine-id")
_OPTIONS.add_argument("--local-listen-port", type=int, default=DEFAULT_LISTEN_PORT)
_OPTIONS.add_argument("-c", "--coordinator-addr")
_OPTIONS.add_argument("--coordinator-port", type=int)


def fingerprint(token: str) -> str:
    """Return a digest by which tokens are compared, and which does not reveal the secret.

    The token of a machine has the same fingerprint as the token of its cluster.
    """
    secret = Token.parse(token.strip()).for_machine.secret
    return hashlib.sha256(b"dora cluster\0" + secret.encode()).hexdigest()[:16]


def survey() -> dict[str, Any]:
    """Return every daemon that runs here or is installed as a service."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError, KeyError, ValueError, IndexError):
            one = _process(int(pid))
            kept = found.setdefault((one["user"], one["name"]), one)
            if (one["since"], one["pid"]) < (kept["since"], kept["pid"]):  # ignore a fork
                found[one["user"], one["name"]] = one
    running = list(found.values())
    for path in (*Path("/etc/systemd/system").glob(_UNITS), *user_units().glob(_UNITS)):
        if path.exists():
            _add_service(path, running)
    return {"daemons": [_with_records(one) for one in running]}


def _process(pid: int) -> dict[str, Any]:
    """Return the daemon with this process; raises an error for another process."""
    folder = Path(f"/proc/{pid}")
    environ: dict[str, str] = {}
    arguments = _daemon_arguments(command_line(pid))
    with suppress(OSError):  # of another user
        pairs = (folder / "environ").read_bytes().split(b"\0")
        environ = dict(os.fsdecode(pair).split("=", 1) for pair in pairs if b"=" in pair)
    one = _described(arguments, environ)
    if one["id"] is None and one["coordinator"][0] in LOOPBACK:
        raise ValueError("the daemon of `dora up`, for this machine only")
    ticks = int((folder / "stat").read_text().rpartition(")")[2].split()[19])
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    since = time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")
    user = pwd.getpwuid(folder.stat().st_uid).pw_name
    return {**one, "pid": pid, "user": user, "since": since}


def _daemon_arguments(words: list[str]) -> list[str]:
    """Return the words after `daemon`; raises ValueError if these do not start a daemon."""
    for number, word in enumerate(words[:8]):
        is_dora = any("dora" in Path(other).name for other in words[:number])
        if word == "dora_daemon.command" or (word == "daemon" and is_dora):
            return words[number + 1 :]
    raise ValueError("not a daemon")


def _described(arguments: list[str], environ: dict[str, str]) -> dict[str, Any]:
    try:
        given, _ = _OPTIONS.parse_known_args(arguments)
    except ArgumentError as error:
        raise ValueError(str(error)) from None
    name = given.machine_id or ""
    if not name or given.local_listen_port != DEFAULT_LISTEN_PORT:
        name += f"@{given.local_listen_port}"
    address = given.coordinator_addr or environ.get("DORA_COORDINATOR_ADDR", LOOPBACK[0])
    port = given.coordinator_port or environ.get("DORA_COORDINATOR_PORT", DEFAULT_PORT)
    return {
        "id": given.machine_id,
        "name": name,
        "port": given.local_listen_port,
        "coordinator": [address, int(port)],
        "service": None,
        "user_service": False,
        "secrets": environ.get("CREDENTIALS_DIRECTORY"),
    }


def _add_service(path: Path, running: list[dict[str, Any]]) -> None:
    """Add a service, or its name to the daemon that runs as this service."""
    text, one = "", _described([], {})
    with suppress(OSError):  # of another user
        text = path.read_text(errors="replace")
    with suppress(ValueError):  # edited by hand
        one = _described(_daemon_arguments(unit_words(text)), {})
    if one["id"] is None:
        one["id"] = one["name"] = path.stem.removeprefix("dora-daemon-")
    of_user = path.parent == user_units()
    named = None if of_user else re.search(r"^User=(.*)$", text, re.MULTILINE)
    user = named[1].strip() if named else pwd.getpwuid(os.getuid()).pw_name
    service = {"service": path.stem, "user_service": of_user}
    for other in running:
        if (other["id"], other["user"]) == (one["id"], user):
            other.update(service)
            return
    running.append({**one, **service, "pid": None, "user": user, "since": path.stat().st_mtime})


def _with_records(one: dict[str, Any]) -> dict[str, Any]:
    """Add the token's fingerprint, the owner record and the dataflows, if readable."""
    folder = _folder(one["user"], one["name"])
    secrets = Path(one.pop("secrets") or folder / "given")
    kept = Path.home() / ".config/dora-daemon" if one["user_service"] else Path("/etc/dora-daemon")
    owner = None
    with suppress(OSError, ValueError):
        owner = json.loads((folder / OWNER).read_text())
    token = (owner or {}).get("token")
    for path in (kept / f"{one['id']}.token", secrets / "dora-token"):
        with suppress(OSError, ValueError):
            token = fingerprint(path.read_text())
    mine = one["user"] == pwd.getpwuid(os.getuid()).pw_name
    dataflows = sorted(_dataflows(folder / "parts")) if one["pid"] is not None else []
    return {**one, "owner": owner, "token": token, "mine": mine, "dataflows": dataflows}


def _dataflows(folder: Path) -> Iterable[str]:
    """Yield the names of the dataflows that have not ended."""
    with suppress(OSError):
        for path in folder.glob("*.json"):
            with suppress(OSError, ValueError, AttributeError):
                record = json.loads(path.read_text())
                if record.get("phase") != "ended":
                    yield record.get("spec", {}).get("name") or record["dataflow_id"]


def _folder(user: str, name: str) -> Path:
    with suppress(KeyError):
        entry = pwd.getpwnam(user)
        if entry.pw_uid != os.getuid():
            return Path(entry.pw_dir) / ".local/state/dora/daemon" / name
    return daemon_folder(name)


def record(name: str, owner: dict[str, Any]) -> dict[str, Any]:
    """Store the owner record of a daemon."""
    folder = daemon_folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / OWNER, json.dumps({**owner, "since": time.time()}))
    return {}


def end(pid: int, within: float) -> dict[str, Any]:
    """End a daemon process of any user, with its dataflows."""

    def runs() -> bool:
        try:
            _daemon_arguments(command_line(pid))
        except ValueError:
            return False
        return True

    with suppress(ProcessLookupError):
        if runs():
            os.kill(pid, signal.SIGTERM)
    wait_for_end("daemon", pid, runs, within, "there, as root")
    return {}
