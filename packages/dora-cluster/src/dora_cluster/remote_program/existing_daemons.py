"""Surveys the daemons of a machine; a token appears as its fingerprint only."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import pwd
import re
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from dora_cluster.remote_program.paths import command_line, unit_words, user_units, wait_for_end

LOOPBACK = ("127.0.0.1", "::1", "localhost")
DEFAULT_PORT = "6013"
DEFAULT_LISTEN_PORT = "53291"
OWNER = "owner.json"


def fingerprint(token: str) -> str:
    """Return a digest by which tokens are compared, and which does not reveal the secret.

    That of a machine has the same as that of its cluster.
    """
    return hashlib.sha256(b"dora cluster\0" + _secret(token.strip()).encode()).hexdigest()[:16]


def _secret(token: str) -> str:
    """Return the secret of the machine's token, as `Token.for_machine`."""
    secret = token.split(".", 2)[-1] if token.startswith("dora1.") else token
    if secret.startswith("machine-"):
        return secret
    key = secret.encode("utf-8", "surrogateescape")
    return f"machine-{hmac.new(key, b'dora token of a machine', hashlib.sha256).hexdigest()}"


def survey() -> dict[str, Any]:
    """Return every daemon that runs here or is installed as a service."""
    running = _processes()
    found = [_service(path, running) for path in _units()]
    services = {(one["id"], one["user"]) for one in found if one["pid"] is not None}
    for one in running:
        if (one["id"], one["user"]) not in services:
            found.append(one)
    for one in found:
        _add_records(one)
        del one["uid"]
    return {"daemons": found}


def _processes() -> list[dict[str, Any]]:
    """Return the daemon processes of all users; of a process and its forks the oldest."""
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        one = None
        with suppress(OSError, KeyError, ValueError, IndexError):
            one = _process(int(entry))
        if one is not None:
            kept = found.setdefault((one["uid"], one["name"]), one)
            if (one["since"], one["pid"]) < (kept["since"], kept["pid"]):
                found[one["uid"], one["name"]] = one
    return list(found.values())


def _process(pid: int) -> dict[str, Any] | None:
    folder = Path(f"/proc/{pid}")
    arguments = _daemon_arguments(command_line(pid))
    if arguments is None:
        return None
    uid = folder.stat().st_uid
    one = _described(arguments, _environment(folder))
    if one["id"] is None and one["coordinator"][0] in LOOPBACK:
        return None  # of `dora up`, for this machine only
    user = pwd.getpwuid(uid).pw_name
    return {**one, "pid": pid, "uid": uid, "user": user, "since": _started(folder)}


def _daemon_arguments(words: list[str]) -> list[str] | None:
    """Return the words after `daemon`; None if these words do not start a daemon."""
    for number, word in enumerate(words[:8]):
        if word == "dora_daemon.command":
            return words[number + 1 :]
        before = words[:number]
        if word == "daemon" and any("dora" in Path(other).name for other in before):
            return words[number + 1 :]
    return None


def _environment(folder: Path) -> dict[str, str]:
    with suppress(OSError):
        pairs = (folder / "environ").read_bytes().split(b"\0")
        return dict(os.fsdecode(pair).split("=", 1) for pair in pairs if b"=" in pair)
    return {}


def _described(arguments: list[str], environ: dict[str, str]) -> dict[str, Any]:
    def value(option: str, default: str) -> str:
        for number, word in enumerate(arguments):
            if word == option and number + 1 < len(arguments):
                return arguments[number + 1]
            if word.startswith(f"{option}="):
                return word.partition("=")[2]
        return default

    machine_id = value("--machine-id", "")
    listen = value("--local-listen-port", DEFAULT_LISTEN_PORT)
    address = value("-c", environ.get("DORA_COORDINATOR_ADDR", LOOPBACK[0]))
    address = value("--coordinator-addr", address)
    port = value("--coordinator-port", environ.get("DORA_COORDINATOR_PORT", DEFAULT_PORT))
    plain = machine_id != "" and listen == DEFAULT_LISTEN_PORT
    return {
        "id": machine_id or None,
        "name": machine_id if plain else f"{machine_id}@{listen}",
        "port": int(listen),
        "coordinator": [address, int(port)],
        "service": None,
        "user_service": False,
        "secrets": environ.get("CREDENTIALS_DIRECTORY", ""),
    }


def _started(folder: Path) -> float:
    """Return the start time of a process as Unix time."""
    ticks = int((folder / "stat").read_text().rpartition(")")[2].split()[19])
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")


def _units() -> list[Path]:
    places = (Path("/etc/systemd/system"), user_units())
    found = (path for place in places for path in sorted(place.glob("dora-daemon-*.service")))
    return [path for path in found if path.exists()]


def _service(path: Path, running: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a service, with its process if it runs."""
    text = ""
    with suppress(OSError):  # of another user
        text = path.read_text(errors="replace")
    one = _described([], {})
    with suppress(ValueError):  # a unit that was edited by hand
        one = _described(_daemon_arguments(unit_words(text)) or [], {})
    if one["id"] is None:
        one["id"] = one["name"] = path.stem.removeprefix("dora-daemon-")
    of_user = path.is_relative_to(Path.home() / ".config")
    named = re.search(r"^User=(.*)$", text, re.MULTILINE)
    user = named[1].strip() if named and not of_user else pwd.getpwuid(os.getuid()).pw_name
    with suppress(KeyError):
        uid = pwd.getpwnam(user).pw_uid
        for other in running:
            if (other["id"], other["uid"]) == (one["id"], uid):
                return {**other, "service": path.stem, "user_service": of_user}
        one["uid"] = uid
    one |= {"pid": None, "user": user, "since": path.stat().st_mtime, "service": path.stem}
    return {"uid": -1, **one, "user_service": of_user}


def _add_records(one: dict[str, Any]) -> None:
    """Add the token's fingerprint, the owner record and the dataflows, if readable."""
    folder = _folder(one["user"], one["name"])
    mine = one["uid"] == os.getuid()
    places = [Path(one.pop("secrets") or "/nonexistent") / "dora-token"]
    if one["service"] is None:
        places.append(folder / "given" / "dora-token")
    elif one["user_service"]:
        places.append(Path.home() / ".config" / "dora-daemon" / f"{one['id']}.token")
    else:
        places.append(Path(f"/run/credentials/{one['service']}.service/dora-token"))
        places.append(Path(f"/etc/dora-daemon/{one['id']}.token"))
    one["owner"] = None
    with suppress(OSError, ValueError):
        one["owner"] = json.loads((folder / OWNER).read_text())
    tokens = [text for path in places if (text := _text(path)) is not None]
    one["token"] = fingerprint(tokens[0]) if tokens else (one["owner"] or {}).get("token")
    one["mine"] = mine
    one["dataflows"] = sorted(_dataflows(folder / "parts")) if one["pid"] is not None else []


def _text(path: Path) -> str | None:
    with suppress(OSError, ValueError):
        return path.read_text().strip() or None
    return None


def _dataflows(folder: Path) -> Iterable[str]:
    """Yield the names of the dataflows that have not ended."""
    with suppress(OSError):
        for path in folder.glob("*.json"):
            with suppress(OSError, ValueError, AttributeError):
                record = json.loads(path.read_text())
                if record.get("phase") != "ended":
                    yield record.get("spec", {}).get("name") or record["dataflow_id"]


def _folder(user: str, name: str) -> Path:
    base = ""
    home = Path.home()
    with suppress(KeyError):
        entry = pwd.getpwnam(user)
        home = Path(entry.pw_dir)
        if entry.pw_uid == os.getuid():
            home, base = Path.home(), os.environ.get("XDG_STATE_HOME") or ""
    state = Path(base) if base.startswith("/") else home / ".local" / "state"
    return state / "dora" / "daemon" / name


def record(name: str, owner: dict[str, Any]) -> dict[str, Any]:
    """Store the owner record of a daemon."""
    folder = _folder(pwd.getpwuid(os.getuid()).pw_name, name)
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f".{OWNER}.{os.getpid()}"
    fresh.write_text(json.dumps({**owner, "since": time.time()}))
    fresh.replace(folder / OWNER)
    return {}


def end(pid: int, within: float) -> dict[str, Any]:
    """End a daemon process of any user, with its dataflows."""

    def runs() -> bool:
        return _daemon_arguments(command_line(pid)) is not None

    if runs():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        wait_for_end("daemon", pid, runs, within, "there, as root")
    return {}
