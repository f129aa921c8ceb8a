"""Group, limits, signals and end of a process."""

from __future__ import annotations

import errno
import itertools
import json
import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.leftovers import LEFT_BY_A_TEST, TAG
from support.runner.runs import gone, is_running
from support.waiting import wait_until

from dora_daemon.process_tree import reaper
from dora_daemon.runner.machine.events import Exit
from dora_daemon.runner.process.spawn import (
    NodeProcess,
    raise_open_files,
    spawn,
    usable_cpus,
    watch_process,
    why_not,
)
from dora_node_api.protocol.spawn_request import SpawnRequest

Start = Callable[..., NodeProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[NodeProcess] = []

    def start(*argv: str, **options: object) -> NodeProcess:
        request = SpawnRequest(argv, str(tmp_path), dict(os.environ), **options)  # type: ignore[arg-type]
        started.append(spawn(request))
        return started[-1]

    yield start
    for process in started:
        process.signal_group("SIGKILL")
        process.wait()
        process.close()


def ended(process: NodeProcess) -> Exit:
    found = wait_until(process.reap, what="the end of a process")
    assert found is not None
    return found


def output(process: NodeProcess) -> str:
    """Return the output of the ended process."""
    ended(process)
    return os.read(process.stdout, 65536).decode()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("exit 0", Exit(code=0)),
        ("exit 3", Exit(code=3)),
        ("kill -SEGV $$", Exit(signal="SIGSEGV")),
        ("kill -40 $$", None),
    ],
)
def test_exits(start: Start, command: str, expected: Exit | None) -> None:
    status = ended(start("sh", "-c", command))
    if expected is None:
        assert status.signal is not None
    else:
        assert status == expected


def test_a_program_that_cannot_be_started(start: Start, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        start(str(tmp_path / "absent"))


def test_it_leads_a_group_reads_nothing_and_dies_with_its_parent(start: Start) -> None:
    script = (
        "import os, ctypes, sys; number = ctypes.c_int();"
        "ctypes.CDLL(None).prctl(2, ctypes.byref(number));"
        "print(os.getpid() == os.getpgid(0), os.getsid(0), number.value, repr(sys.stdin.read()))"
    )
    text = output(start(sys.executable, "-c", script))
    expected = int(signal.SIGKILL) if sys.platform == "linux" else 0
    # The scheduler counts the session as one group, within which nodes that poll give way.
    assert text.split() == ["True", str(os.getsid(0)), str(expected), "''"]


ON_A_TERMINAL = """
import fcntl, os, sys, termios
from dora_daemon.runner.process.spawn import spawn
from dora_node_api.protocol.spawn_request import SpawnRequest

fcntl.ioctl(0, termios.TIOCSCTTY, 0)
show = "import os\\ntry: os.open('/dev/tty', os.O_RDWR)\\nexcept OSError as e: print(e.errno)"
process = spawn(SpawnRequest((sys.executable, "-c", show), "/", dict(os.environ)))
process.wait()
print(os.read(process.stdout, 100).decode(), os.open("/dev/tty", os.O_RDWR) > 0)
"""


def test_it_has_no_terminal() -> None:
    """A node that asks for a password fails; it would stop without a word."""
    terminal, inner = os.openpty()
    script = subprocess.run(
        [sys.executable, "-c", ON_A_TERMINAL], stdin=inner, start_new_session=True,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    os.close(terminal)
    os.close(inner)
    assert (script.stdout.split(), script.stderr) == ([str(errno.ENXIO), "True"], "")


def test_descriptors_of_the_runner_are_not_inherited(start: Start) -> None:
    reading, writing = os.pipe()
    try:
        text = output(start(sys.executable, "-c", "import os; print(*os.listdir('/proc/self/fd'))"))
    finally:
        os.close(reading)
        os.close(writing)
    # Three streams, and the listing itself.
    assert len(text.split()) == 4


FORKS = """
import ctypes, json, os, resource, signal, subprocess, sys, threading, time
from dora_daemon.runner.process.spawn import fork
from dora_node_api.protocol.spawn_request import SpawnRequest

def run():
    number = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(number))
    with open("/proc/self/cmdline") as file:
        shown = file.read().split("\\0")
    print(json.dumps({
        "leads": [os.getpid() == os.getpgid(0), os.getsid(0) == os.getsid(os.getppid())],
        "on death": number.value,
        "input": sys.stdin.read(), "open": len(os.listdir("/proc/self/fd")), "env": [*os.environ],
        "kept": os.fstat(kept).st_size, "shown": shown, "folder": os.getcwd(),
        "limit": resource.getrlimit(7), "default": signal.getsignal(signal.SIGTERM) == 0,
    }), flush=True)
    raise ValueError("on purpose")

signal.signal(signal.SIGTERM, lambda *_: None)
kept = os.open(__file__, os.O_RDONLY)
request = SpawnRequest(
    ("some", "program"), "/", {"ONLY": "this"}, open_files=(123, 456), inherited=(kept,)
)
process = fork(request, run)
for number in (process.stdout, process.stderr):
    os.set_blocking(number, True)
print(os.read(process.stdout, 65536).decode().strip())
error = b""
while more := os.read(process.stderr, 65536):
    error += more
print(error.decode().splitlines()[-1])
process.wait()
print(process.exit.code)
threading.Thread(target=threading.Event().wait, daemon=True).start()
print(fork(request, run))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
def test_a_fork_gets_what_a_program_gets(tmp_path: Path) -> None:
    script = tmp_path / "forks.py"
    script.write_text(FORKS)
    printed = subprocess.run(
        [sys.executable, script], input="", capture_output=True, text=True, check=True
    )
    facts, error, code, beside_threads = printed.stdout.splitlines()
    assert json.loads(facts) == {
        "leads": [True, True],
        "on death": int(signal.SIGKILL),
        "input": "",
        "open": 5,  # three streams, the inherited one, and the listing itself
        "env": ["ONLY"],
        "kept": script.stat().st_size,
        "shown": ["some program", ""],
        "folder": "/",
        "limit": [123, 456],
        "default": True,
    }
    assert (error, code, beside_threads) == ("ValueError: on purpose", "1", "None")


def test_cores_and_limits(start: Start) -> None:
    core = min(os.sched_getaffinity(0))
    script = "import os, resource as r; print(os.sched_getaffinity(0), r.getrlimit(7))"
    process = start(sys.executable, "-c", script, cpus=(core,), open_files=(123, 456))
    assert output(process).strip() == f"{{{core}}} (123, 456)"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"cpus": (4000,)}, r"cannot set its processor cores 4000 \(`cpu_affinity`\): .*Invalid"),
        ({"open_files": (456, 123)}, r"cannot set its limits of open files \(456, 123\) .*: "),
    ],
)
def test_cores_or_limits_that_the_kernel_refuses(
    start: Start, options: dict[str, object], reason: str
) -> None:
    with pytest.raises(OSError, match=reason):
        start("true", **options)


def test_any_other_step_that_fails_before_the_program_is_named(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> int:
        raise MemoryError("no memory left")

    monkeypatch.setattr(os, "getppid", fail)  # in the child only
    with pytest.raises(OSError, match="cannot prepare the process: no memory left"):
        start("true")


def test_nonexistent_cores() -> None:
    core = min(os.sched_getaffinity(0))
    assert usable_cpus((core, 4000)) == ((core,), (4000,))


def test_a_signal_reaches_the_children_and_so_does_the_end(start: Start) -> None:
    process = start("sh", "-c", "sleep 1000 & echo $!; wait")
    child = int(os.read(process.stdout, 100) if _readable(process.stdout) else b"0")
    process.signal_group("SIGTERM")
    assert ended(process) == Exit(signal="SIGTERM")
    gone(child)
    left = start("sh", "-c", "trap '' TERM; sleep 1000 & echo $!")
    child = int(os.read(left.stdout, 100) if _readable(left.stdout) else b"0")
    assert is_running(child) or left.exit is not None
    assert ended(left) == Exit(code=0)
    gone(child)
    left.signal_group("SIGKILL")  # the group is empty: no error


LEAKING = """
import multiprocessing, os, signal, sys, time
from multiprocessing.shared_memory import SharedMemory
memory = SharedMemory(sys.argv[1], create=True, size=1000)
child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,))
child.start()
print(f"{memory.name} {child.pid}\\n", end="", flush=True)
if sys.argv[2] == "itself":
    os.kill(os.getpid(), signal.SIGKILL)
signal.pause()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="processes are listed in /proc")
@pytest.mark.parametrize("killed_by", ["itself", "runner"])
def test_shared_memory_of_a_killed_process_is_removed(start: Start, killed_by: str) -> None:
    """Python's resource tracker does that; it is a process of the same group."""
    # other tests ignore names with a tag that is not theirs
    name = LEFT_BY_A_TEST + os.environ[TAG]
    process = start(sys.executable, "-c", LEAKING, name, killed_by)
    assert _readable(process.stdout)
    name, child = os.read(process.stdout, 1000).decode().split()
    if killed_by == "runner":
        process.signal_group("SIGKILL")
    ended(process)
    assert process.exit == Exit(signal="SIGKILL")
    gone(int(child))
    wait_until(lambda: not Path("/dev/shm", name).exists(), what="the end of shared memory")


@pytest.mark.parametrize(
    ("second", "is_killed"), [(b"multiprocessing.resource_tracker", False), (b"sleep", True)]
)
def test_a_program_that_is_just_being_executed_may_be_a_tracker(
    start: Start, monkeypatch: pytest.MonkeyPatch, second: bytes, is_killed: bool
) -> None:
    process = start("sh", "-c", "sleep 1000 & echo $!")
    child = int(os.read(process.stdout, 100) if _readable(process.stdout) else b"0")
    lines = itertools.chain([b"", b""], itertools.repeat(second))
    read = reaper._bytes

    def read_changed(path: str) -> bytes:
        return next(lines) if path == f"/proc/{child}/cmdline" else read(path)

    monkeypatch.setattr(reaper, "_bytes", read_changed)
    assert ended(process) == Exit(code=0)
    if not is_killed:
        assert is_running(child)
        os.kill(child, signal.SIGKILL)
    gone(child)


def _readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 10.0)[0])


def test_exit_descriptor(start: Start) -> None:
    process = start("sh", "-c", "exec sleep 1000")
    assert process.exit_fd is not None
    assert select.select([process.exit_fd], [], [], 0)[0] == []
    assert process.reap() is None
    watched = watch_process(process.pid)
    assert watched is not None
    process.signal_group("SIGKILL")
    assert select.select([process.exit_fd, watched], [], [], 10.0)[0]
    os.close(watched)
    assert ended(process) == Exit(signal="SIGKILL")


def test_signal_without_a_name(start: Start) -> None:
    assert ended(start("sh", "-c", "kill -40 $$")) == Exit(signal="40")


def test_the_limit_of_open_files_is_raised() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, before[1]), before[1]))
        assert raise_open_files()[0] == min(256, before[1])
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_watching_a_process_that_does_not_exist() -> None:
    assert watch_process(2**22 + 1) is None


@pytest.mark.parametrize(
    ("number", "remedy"), [(errno.EMFILE, "(`ulimit -n`)"), (errno.EAGAIN, "(`ulimit -u`)")]
)
def test_the_limit_that_keeps_a_program_from_starting_is_named(number: int, remedy: str) -> None:
    message = why_not("/usr/bin/python3", OSError(number, os.strerror(number)))
    assert os.strerror(number) in message
    assert remedy in message
