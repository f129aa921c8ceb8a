"""Kills the processes of an owner that was killed, and removes its runtime directory.

The owner is the process that uses the directory: a runner or a build. It starts this file as a
script, before any other process, with the read end of a pipe as stdin; the pipe ends with the
owner. The reaper runs as long as the owner, so it imports only a few modules of the standard
library: it starts in milliseconds and stays small.

The owner records each started process in the file ``groups`` (``PID START_TIME``) at once; a pid
alone may have been reused. A process that left its group and session is found by the owner's mark
in its environment (``mark TEXT``), where the system shows environments.
"""

# ruff: noqa: PTH110, PTH116, PTH118, SIM105
from __future__ import annotations

import fcntl
import os
import signal
import sys
import time

TYPE_CHECKING = False  # `typing` would double the time to start
if TYPE_CHECKING:
    from collections.abc import Callable

GROUPS = "groups"
LOCK = "lock"
OWNER = "owner"
"""File with the token of the part for which a daemon made the directory."""
INDEX = "index.json"
LOG = "runner.log"
RESULT = "result.json"
KEPT_WITH_RESULT = (RESULT, INDEX, LOG, LOCK, OWNER)
"""Files that stay while the result has not been acknowledged."""
MAX_ROUNDS = 100
"""Attempts, with pauses of at least a millisecond between them."""
TRACKER = b"multiprocessing.resource_tracker"
"""Part of the command line of a resource tracker."""

_MARK = "mark"


def group_line(pid: int, started: int) -> str:
    """Return the line of ``groups`` for the leader of a group or session."""
    return f"{pid} {started}\n"


def mark_line(mark: str) -> str:
    """Return the line of ``groups`` for the mark in the environment of all processes."""
    return f"{_MARK} {mark}\n"


def kill_groups(leaders: dict[int, int]) -> None:
    """SIGKILL all processes of the groups and sessions led by these (pid: start time)."""
    # a reused pid leads unrelated processes
    known = {p: s for p, s in leaders.items() if _start_time(p) in (None, s)}
    _kill_all(lambda: _members(known))


def _members(leaders: dict[int, int]) -> list[int]:
    """Return the living processes of these groups and sessions."""
    found = []
    for pid in _pids():
        fields = _stat(pid)
        if _is_alive(fields):
            started = leaders.get(int(fields[2]), leaders.get(int(fields[3])))
            if started is not None and int(fields[19]) >= started:
                found.append(pid)
    return found


def kill_marked(mark: str) -> None:
    """SIGKILL every process of this user whose environment contains the mark.

    A process that cleared its environment is not found.
    """
    if not mark:  # would match all processes
        return
    own = os.getpid()
    text = mark.encode() + b'"'  # the end of the JSON string, so that a longer mark does not match

    def marked() -> list[int]:
        found = [pid for pid in _pids() if pid != own and text in _bytes(f"/proc/{pid}/environ")]
        return [pid for pid in found if _is_alive(_stat(pid))]

    _kill_all(marked)


def kill_rest_of_group(leader: int) -> None:
    """SIGKILL the other processes of a group, but do not wait for its resource trackers."""

    def others() -> list[int]:
        found = [pid for pid in _pids() if pid != leader and _group_of(pid) == leader]
        return [pid for pid in found if _is_alive(_stat(pid))]

    _kill_all(others, pause=0.001, wait_for_trackers=False)


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None


def _kill_all(
    find: Callable[[], list[int]], *, pause: float = 0.01, wait_for_trackers: bool = True
) -> None:
    """SIGKILL what `find` returns until it returns none, because a process may fork meanwhile.

    Resource trackers of multiprocessing have 100 rounds to remove the shared memory and semaphores
    of the others. A process with an empty command line is spared until the last round: it is being
    executed and may become one of them.
    """
    for rounds_left in reversed(range(MAX_ROUNDS)):
        lines = {pid: _bytes(f"/proc/{pid}/cmdline") for pid in find()}
        trackers = {pid for pid, line in lines.items() if TRACKER in line}
        if not lines or (trackers == set(lines) and not wait_for_trackers):
            return
        for pid, line in lines.items():
            if not rounds_left or (line and pid not in trackers):
                _quietly(os.kill, pid, signal.SIGKILL)
        time.sleep(pause)


def _pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def kill_recorded(directory: str) -> None:
    """Kill everything recorded in ``groups`` of a directory that was made since the last boot."""
    leaders = {}
    marks = []
    for line in _read(os.path.join(directory, GROUPS)).splitlines():
        words = line.split()
        if len(words) != 2:
            continue
        if words[0] == _MARK:
            marks.append(words[1])
        elif words[0].isdigit() and words[1].isdigit():
            leaders[int(words[0])] = int(words[1])
    if leaders:
        kill_groups(leaders)
    for mark in marks:
        kill_marked(mark)


def remove_directory(directory: str, kept: tuple[str, ...] = ()) -> None:
    """Remove a runtime directory and its content, without following links, except ``kept`` files.

    The lock is removed last: if the owner is killed before, its reaper removes the rest.
    """
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name == LOCK)
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            remove_directory(entry.path)
        elif entry.name not in kept:
            _quietly(os.unlink, entry.path)
    if not kept:
        _quietly(os.rmdir, directory)


def clear_directory(directory: str) -> None:
    """Remove a runtime directory; with a result, keep the files that belong to it."""
    has_result = os.path.exists(os.path.join(directory, RESULT))
    remove_directory(directory, KEPT_WITH_RESULT if has_result else ())


def _start_time(pid: int) -> int | None:
    """Return the clock ticks from boot to the start of a process; None if it does not exist."""
    # copy of dora_config.process_identity: this script imports only the standard library
    fields = _stat(pid)
    return int(fields[19]) if len(fields) > 19 else None


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat behind the command's name."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def _is_alive(fields: list[str]) -> bool:
    """Return whether the fields are those of a process that has not ended."""
    return len(fields) > 19 and fields[0] not in "ZX"


def _read(path: str) -> str:
    return _bytes(path).decode("utf-8", "replace")


def _bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _quietly(call: Callable[..., None], *arguments: object) -> None:
    try:
        call(*arguments)
    except OSError:
        pass


def main(directory: str) -> None:
    """Wait for the end of stdin, then clean up unless the directory has another owner."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    path = os.path.join(directory, LOCK)
    try:
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        lock = -1  # already removed
    while os.read(0, 4096):
        pass
    if lock >= 0 and _take_lock(path, lock):
        kill_recorded(directory)
        clear_directory(directory)


def _take_lock(path: str, lock: int) -> bool:
    """Lock the file that the owner had locked; return whether it is still the one at ``path``.

    A removed directory may exist again under the same number with another owner. A lock held by
    another process means that it is being cleaned up.
    """
    for _ in range(MAX_ROUNDS):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            time.sleep(0.01)
    else:
        return False
    try:
        return os.path.samestat(os.stat(path), os.fstat(lock))
    except OSError:
        return False


if __name__ == "__main__":
    main(sys.argv[1])
    os._exit(0)
