"""The lease of this machine: the record of the command that changes it.

The command touches the record while it works. A record that was not touched for a while does not
count, so that a command that ended in any way blocks others for that time at most.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from dora_cluster.remote_program.paths import remove_unused, state_dir
from dora_cluster.remote_program.protocol import RemoteProblem, decode_reply, encode_result
from dora_config.process_identity import boot_id


def lease_file() -> Path:
    """Return the record of this account on this machine; machines may share its home."""
    return state_dir() / f"cluster-{_machine_id()}.lease"


def take(info: dict[str, Any], seconds: float, ended: str | None = None) -> dict[str, Any]:
    """Take the lease, unless another command has it: its record is the ``holder``, otherwise None.

    ``info``: shown to others; ``ended``: key of a command that has ended and does not count. The
    answer also has the ``path`` of the record, None on a full disk, where commands do not exclude
    each other. Raises RemoteProblem.
    """
    path = lease_file()
    machine = f"{os.uname().nodename} {_machine_id()} {boot_id()}"
    answer = {"path": str(path), "machine": machine, "account": os.geteuid()}
    with _locked(path) as file:
        holder = _read(file, seconds)
        if holder is not None and holder["key"] not in (info["key"], ended):
            return answer | {"holder": holder}
        try:
            file.truncate(0)
            file.write(encode_result(info | {"since": time.time(), "seconds": seconds}))
            file.flush()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            answer["path"] = None
    return answer | {"holder": None}


def give_back(key: str, seconds: float) -> dict[str, Any]:
    """Remove the record of a command, and folders that are empty then."""
    path = lease_file()
    with _locked(path) as file:
        holder = _read(file, seconds)
        if holder is None or holder["key"] == key:
            path.unlink()
            remove_unused(path.parent)
    return {}


@contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    """Open the record while no other command reads or writes it."""
    try:
        while (file := _open_locked(path)) is None:
            pass
    except PermissionError as error:
        raise RemoteProblem(
            f"{error.filename}: {error.strerror}; this account must own the folder {path.parent}"
        ) from error
    with file:
        yield file


def _open_locked(path: Path) -> IO[bytes] | None:
    """Return the record; None if another command removed it or its folder meanwhile."""
    with suppress(FileNotFoundError), ExitStack() as stack:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except FileExistsError:
            if not stat.S_ISDIR(path.parent.lstat().st_mode):
                raise
            return None  # it was removed between two steps of mkdir
        path.parent.chmod(0o700)
        file = stack.enter_context(path.open("a+b", buffering=0))
        fcntl.lockf(file, fcntl.LOCK_EX)
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            stack.pop_all()
            return file
    return None


def _read(file: IO[bytes], seconds: float) -> dict[str, Any] | None:
    """Return the record; None if it does not count any more."""
    if abs(time.time() - os.fstat(file.fileno()).st_mtime) > seconds:
        return None
    file.seek(0)
    with suppress(ValueError):  # empty
        return decode_reply(file.read())
    return None


def _machine_id() -> str:
    with suppress(OSError):
        return Path("/etc/machine-id").read_text().strip()
    return ""
