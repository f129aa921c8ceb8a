"""Holds the lock of a machine until its input ends.

The lock is a record lock on a file that only this account and root can open; the kernel frees it
when its holder ends for any reason. The holder ends when its input ends (the connection was
closed) or is silent for ``lease`` seconds (the connection was lost, or the command was suspended).
The file has the facts about the holder; they count only if the kernel names the same process.
"""

from __future__ import annotations

import fcntl
import math
import os
import select
import struct
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from dora_cluster.remote_program.paths import remove_unused, state_dir
from dora_cluster.remote_program.protocol import Problem, decode_reply, encode_result, send_result

POLL_INTERVAL = 0.1
MAX_FACTS = 64 * 1024
"""Bytes of the facts about a holder."""
_FLOCK = "hhqqi0q"
"""``struct flock``: type, whence, start, length, process."""


class InputEnded(Exception):
    """The connection was closed, or was silent for too long."""


class LeasedInput:
    """Standard input, which must receive a byte from the command within each ``lease``."""

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._until = time.monotonic() + lease

    def wait(self, *, within: float = math.inf) -> None:
        """Return after ``within`` seconds; raises InputEnded."""
        poll = select.poll()
        poll.register(0, select.POLLIN)
        limit = time.monotonic() + within
        while (now := time.monotonic()) < limit:
            if now >= self._until:
                raise InputEnded
            if poll.poll((min(self._until, limit) - now) * 1000):
                if not os.read(0, 4096):
                    raise InputEnded
                self._until = time.monotonic() + self._lease


def lock_file() -> Path:
    """Return the lock file of this account on this machine; machines may share its home."""
    machine = ""
    with suppress(OSError):
        machine = Path("/etc/machine-id").read_text().strip()
    return state_dir() / f"cluster-{machine}.lock"


def acquire(info: dict[str, Any], wait: bool, lease: float) -> None:
    """Acquire and hold the lock; ``info``: shown to others.

    Sends ``{"held": true}``, with ``"shared": true`` if a lock with the same ``key`` is held;
    ``{"held": false, "holder": ...}``; or, for each holder that it waits for,
    ``{"waiting": holder}``. Each contains the ``machine`` and the ``account``. Raises Problem.
    """
    standard_input, path = LeasedInput(lease), lock_file()
    shown: dict[str, Any] | None = {}
    was_unknown = False
    with suppress(InputEnded, BrokenPipeError):
        while (descriptor := _lock(path)) is None:
            holder = _holder(path)
            if holder is not None or was_unknown:  # one that has just begun has no facts yet
                if holder is not None and holder["key"] == info["key"]:
                    _send({"held": True, "shared": True})
                    return
                if not wait:
                    _send({"held": False, "holder": holder})
                    return
                if holder != shown:
                    _send({"waiting": holder})
                    shown = holder
            was_unknown = holder is None
            standard_input.wait(within=POLL_INTERVAL)
        try:
            _write_facts(descriptor, info)
            _send({"held": True})
            standard_input.wait()
        finally:
            path.unlink(missing_ok=True)
            remove_unused(path.parent)
            os.close(descriptor)


def _send(answer: dict[str, Any]) -> None:
    send_result(answer | {"machine": _machine(), "account": os.geteuid()})


def _machine() -> str:
    """Return a text that identifies the machine."""
    parts = [os.uname().nodename]
    for path in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        with suppress(OSError):
            parts.append(Path(path).read_text().strip())
    return " ".join(parts)


def _lock(path: Path) -> int | None:
    """Return the open file, locked until it is closed; None if another process has locked it."""
    try:
        with ExitStack() as opened:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.parent.chmod(0o700)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            opened.callback(os.close, descriptor)
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                opened.pop_all()
                return descriptor
    except (BlockingIOError, FileNotFoundError):  # held, or removed by a holder that just ended
        pass
    except PermissionError as error:
        raise Problem(
            f"{error.filename}: {error.strerror}; this account must own the folder {path.parent}"
        ) from error
    except OSError as error:
        error.filename = error.filename or path
        raise
    return None


def _write_facts(descriptor: int, info: dict[str, Any]) -> None:
    facts = info | {"since": time.time(), "holder": os.getpid()}
    with suppress(OSError):  # a full disk: others then see only that the machine is locked
        os.ftruncate(descriptor, 0)
        os.write(descriptor, encode_result(facts))


def _holder(path: Path) -> dict[str, Any] | None:
    """Return the facts about the holder, None if it has written none; raises Problem."""
    try:
        with path.open("rb") as file:
            request = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            held = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, request))  # 0: free
            facts = decode_reply(file.read(MAX_FACTS))
    except (FileNotFoundError, ValueError):
        return None
    return facts if facts.get("holder") == held[-1] else None
