"""Ends what a runner that was killed leaves behind: its nodes' sessions and its directory.

Run as a script by the runner, before anything else, with the reading end of a pipe as stdin; when
the runner is gone the pipe ends. The script is kept apart from everything: it imports five modules
of the standard library and nothing of ours, so that it starts in milliseconds and stays small.

A process is identified by pid, start time and boot id, because pids are used again. The runner
notes each node in the file ``groups`` (a line ``PID START_TIME``) right after it has started it.
What a node started in a session of its own is found by the runner's mark in its environment (the
line ``mark TEXT``), where the system shows the environment of processes.
"""

# Hardly any imports, because this process lives as long as the dataflow.
# ruff: noqa: PTH110, PTH112, PTH116, PTH118, SIM105
from __future__ import annotations

import fcntl
import os
import signal
import sys
import time

GROUPS = "groups"
LOCK = "lock"
OWNER = "owner"
"""Whose the directory is, where a daemon made it."""
RESULT = "result.json"
MOST_LOOKS = 100
KEPT_WITH_RESULT = (RESULT, "index.json", "runner.log", LOCK, OWNER)


def kill_sessions(leaders: dict[int, int]) -> None:
    """SIGKILL to all processes of the sessions that these processes (pid: start time) began.

    Looks again until nobody is left: a process may have been forked behind our back.
    """
    if not os.path.isdir("/proc/self"):
        for leader in leaders:
            _kill(leader, group=True)
        return
    # Where a pid is somebody else's by now, the session is too.
    known = {p: s for p, s in leaders.items() if _start_time(p) in (None, s)}
    for leader, started in known.items():
        if _start_time(leader) == started:
            _kill(leader, group=True)
    for _ in range(MOST_LOOKS):
        members = _members(known)
        for pid in members:
            _kill(pid, group=False)
        if not members:
            return
        time.sleep(0.01)


def _members(leaders: dict[int, int]) -> list[int]:
    """Living processes of these sessions."""
    found = []
    for pid in _pids():
        fields = _stat(pid)
        if len(fields) > 19 and fields[0] not in "ZX":
            started = leaders.get(int(fields[3]))
            if started is not None and int(fields[19]) >= started:
                found.append(pid)
    return found


def kill_marked(mark: str) -> None:
    """SIGKILL to every process of ours whose environment holds the mark of a runner.

    Looks again until nobody is left. A process that cleared its environment is not found.
    """
    if not mark or not os.path.isdir("/proc/self"):
        return
    text = mark.encode() + b'"'  # as it ends in JSON: another may begin like it
    for _ in range(MOST_LOOKS):
        found = [pid for pid in _others() if text in _bytes(f"/proc/{pid}/environ")]
        living = [pid for pid in found if _stat(pid)[:1] not in ([], ["Z"], ["X"])]
        for pid in living:
            _kill(pid, group=False)
        if not living:
            return
        time.sleep(0.01)


def _others() -> list[int]:
    own = os.getpid()
    return [pid for pid in _pids() if pid != own]


def _pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def kill_recorded(directory: str) -> None:
    """Kill all that the directory's ``groups`` tells of; call it only for this boot."""
    leaders = {}
    marks = []
    for line in _read(os.path.join(directory, GROUPS)).splitlines():
        words = line.split()
        if len(words) != 2:
            continue
        if words[0] == "mark":
            marks.append(words[1])
        elif words[0].isdigit() and words[1].isdigit():
            leaders[int(words[0])] = int(words[1])
    if leaders:
        kill_sessions(leaders)
    for mark in marks:
        kill_marked(mark)


def remove_directory(directory: str) -> None:
    """Remove a runtime directory with all that is in it, links not followed.

    Its lock goes last: by that a guardian knows what a runner that was killed in here has left.
    """
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name == LOCK)
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            remove_directory(entry.path)
        else:
            _quietly(os.unlink, entry.path)
    _quietly(os.rmdir, directory)


def clear_directory(directory: str) -> None:
    """Remove a runtime directory; one with a result keeps what tells of it."""
    if not os.path.exists(os.path.join(directory, RESULT)):
        remove_directory(directory)
        return
    for entry in list(os.scandir(directory)):
        if entry.is_dir(follow_symlinks=False):
            remove_directory(entry.path)
        elif entry.name not in KEPT_WITH_RESULT:
            _quietly(os.unlink, entry.path)


def _start_time(pid: int) -> int | None:
    """Clock ticks since boot at which a process started; ``None`` if it does not exist."""
    # repeats dora_config.process_identity: this script imports nothing of ours
    fields = _stat(pid)
    return int(fields[19]) if len(fields) > 19 else None


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat after the command's name: state first, start time the 20th."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def _read(path: str) -> str:
    return _bytes(path).decode("utf-8", "replace")


def _bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _kill(pid: int, *, group: bool) -> None:
    _quietly(os.killpg if group else os.kill, pid, signal.SIGKILL)


def _quietly(call: object, *arguments: object) -> None:
    try:
        call(*arguments)  # type: ignore[operator]
    except OSError:
        pass


def main(directory: str) -> None:
    """Wait for the end of stdin, then clean up what is still the runner's."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    path = os.path.join(directory, LOCK)
    try:
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        lock = -1  # it is gone already
    while os.read(0, 4096):
        pass
    if lock >= 0 and _is_ours(path, lock):
        kill_recorded(directory)
        clear_directory(directory)


def _is_ours(path: str, lock: int) -> bool:
    """Take the lock that the runner had. A directory that was removed may have been made again
    under the same number, for somebody else; one that somebody else holds is being cleared.
    """
    for _ in range(MOST_LOOKS):
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
