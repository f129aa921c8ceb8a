"""A process of a node: it is signalled as a group and always waited for."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import resource
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NoReturn

from dora_daemon.process_tree.reaper import kill_rest_of_group
from dora_daemon.runner.logs.logs import LineHandler, OutputReader
from dora_daemon.runner.machine.events import Exit
from dora_daemon.runner.process.metrics import LoadMeter
from dora_node_api.protocol.spawn_request import SpawnRequest

_PR_SET_PDEATHSIG = 1
"""Option of prctl(2): the signal that a process gets when its parent ends."""
_PRCTL: Any = getattr(ctypes.CDLL(None), "prctl", None)


class ForkedProcess:
    """Child that this process or the zygote forked, with the part of Popen that is used here."""

    def __init__(self, pid: int, stdout: int, stderr: int) -> None:
        self.pid = pid
        self.stdout: IO[bytes] = os.fdopen(stdout, "rb", buffering=0)
        self.stderr: IO[bytes] = os.fdopen(stderr, "rb", buffering=0)
        self.returncode: int | None = None

    def wait(self) -> int:
        if self.returncode is None:
            _, status = os.waitpid(self.pid, 0)
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


class NodeProcess:
    """One process and its group. Readable descriptors: ``stdout``, ``stderr``, ``exit_fd``."""

    def __init__(self, popen: subprocess.Popen[bytes] | ForkedProcess) -> None:
        assert popen.stdout is not None
        assert popen.stderr is not None
        self._popen = popen
        self.pid = popen.pid
        self.stdout = popen.stdout.fileno()
        self.stderr = popen.stderr.fileno()
        os.set_blocking(self.stdout, False)
        os.set_blocking(self.stderr, False)
        self.exit_fd = watch_process(popen.pid)
        """Becomes readable when the process has ended; ``None`` where pidfds do not exist."""
        self.exit: Exit | None = None
        self.incarnation = 0
        self.load = LoadMeter(popen.pid)
        self._readers: tuple[OutputReader, ...] = ()

    def read_into(self, log: LineHandler) -> None:
        """Pass on the output of the process until it is closed."""
        out, err = self.stdout, self.stderr
        self._readers = (OutputReader(out, "stdout", log), OutputReader(err, "stderr", log))

    def signal_group(self, name: str) -> None:
        """Signal the whole group, unless the process was reaped and the group has ended.

        SIGKILL is sent to the process only; `reap` kills the rest.
        """
        if self.exit is None:
            send = os.kill if name == "SIGKILL" else os.killpg
            with suppress(ProcessLookupError, PermissionError):
                send(self.pid, signal.Signals[name])

    def reap(self) -> Exit | None:
        """Return the exit if the process has ended, after killing the rest of its group."""
        if self.exit is None and self._has_ended():
            # kill before the wait: until then the pid, and so the group's number, cannot be reused
            kill_rest_of_group(self.pid)
            self.exit = _as_exit(self._popen.wait())
        return self.exit

    def wait(self) -> None:
        """Block until the end; call this after SIGKILL."""
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        self.reap()

    def _has_ended(self) -> bool:
        if self._popen.returncode is not None:
            return True
        with suppress(ChildProcessError):
            flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return os.waitid(os.P_PID, self.pid, flags) is not None
        return True

    def close(self) -> None:
        """Read the rest and close the descriptors; call this once the process was reaped."""
        for reader in self._readers:
            reader.finish()
        if self.exit_fd is not None:
            os.close(self.exit_fd)
            self.exit_fd = None
        for stream in (self._popen.stdout, self._popen.stderr):
            if stream is not None:
                stream.close()


def spawn(request: SpawnRequest) -> NodeProcess:
    """Start a process; call this on the main thread, whose end SIGKILLs the process.

    Raises OSError when the program cannot be started.
    """
    problem, report = os.pipe()
    with open(problem, "rb", buffering=0) as problems, warnings.catch_warnings():
        # Python warns about a fork beside threads; the hook takes no lock and imports nothing
        warnings.filterwarnings("ignore", message=".*multi-threaded", category=DeprecationWarning)
        try:
            popen = subprocess.Popen(
                request.argv,
                cwd=request.cwd,
                env=dict(request.env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                pass_fds=request.inherited,
                preexec_fn=_before_exec(request, os.getpid(), report),
            )
        except subprocess.SubprocessError as error:
            os.set_blocking(problem, False)
            text = problems.read(4096) or b""
            raise OSError(text.decode(errors="replace") or str(error)) from error
        finally:
            os.close(report)
    return NodeProcess(popen)


def fork(request: SpawnRequest, run: Callable[[], int]) -> NodeProcess | None:
    """Start a process that calls ``run``, which does the same as the program of the request.

    Modules of this process need not be imported again. Returns None if this process has other
    threads or their number cannot be read: use `spawn` then. Raises OSError.
    """
    try:
        if len(os.listdir("/proc/self/task")) > 1:
            return None
    except OSError:
        return None
    parent = os.getpid()
    pipes: list[int] = []
    try:
        pipes += os.pipe()
        pipes += os.pipe()
        pid = os.fork()
    except OSError:
        for number in pipes:
            os.close(number)
        raise
    if pid == 0:
        _become(request, run, parent, (pipes[1], pipes[3]))
    for number in pipes[1::2]:
        os.close(number)
    return NodeProcess(ForkedProcess(pid, pipes[0], pipes[2]))


def end_with_parent(parent: int) -> None:
    """Let this process end with the thread that started it, or now if ``parent`` has ended."""
    _PRCTL(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(127)


def _become(
    request: SpawnRequest, run: Callable[[], int], parent: int, outputs: tuple[int, int]
) -> NoReturn:
    """Turn a forked process into one as `spawn` would start it, and call ``run``."""
    code = 1
    try:
        gc.freeze()  # finalizers of the parent's objects would close descriptors
        _reset_signals()
        end_with_parent(parent)
        with open(os.devnull, "rb", buffering=0) as null:
            for number, descriptor in enumerate((null.fileno(), *outputs)):
                os.dup2(descriptor, number)
        for number in set(map(int, os.listdir("/proc/self/fd"))) - {0, 1, 2, *request.inherited}:
            with suppress(OSError):  # the descriptor of the listing is closed already
                os.close(number)
        os.chdir(request.cwd)
        request.apply()
        from dora_node_api.zygote import show

        show(request.argv, request.env)
        code = run()
    except BaseException:  # noqa: BLE001 - nothing of the parent must run here
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        if callable(handler) and handler is not signal.default_int_handler:
            signal.signal(number, signal.SIG_DFL)


def why_not(program: str, error: OSError | ValueError) -> str:
    """Return why a program could not be started, with the remedy."""
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ENOENT and Path(program).is_file():
        return f"it exists, but the interpreter that its first line names does not ({error})"
    if number == errno.ENOEXEC:
        return (
            f"it is not a program for this machine ({os.uname().machine}): build it for that one; a"
            f" script must begin with a line such as `#!/usr/bin/env python3` ({error})"
        )
    if number == errno.EMFILE:
        return f"{error}; the runner has reached its limit of open files: raise it (`ulimit -n`)"
    if number == errno.EAGAIN:
        return (
            f"{error}; no more processes are allowed: raise the limit of the user (`ulimit -u`) or"
            " of the service or container (pids)"
        )
    return str(error)


def _before_exec(request: SpawnRequest, parent: int, report: int) -> Callable[[], None]:
    """Return the function of the child before exec; ``report``: pipe for a failure."""

    def prepare() -> None:
        try:
            end_with_parent(parent)
            request.apply()
        except BaseException as error:
            step = "" if isinstance(error, OSError) else "cannot prepare the process: "
            os.write(report, f"{step}{error!s}".encode())  # Popen reports no cause
            raise

    return prepare


def usable_cpus(wanted: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Split cores into those this process may use and those it may not."""
    have = os.sched_getaffinity(0)
    return tuple(c for c in wanted if c in have), tuple(c for c in wanted if c not in have)


def raise_open_files() -> tuple[int, int]:
    """Raise this process's limit of open files as far as allowed; return the former limits."""
    soft, hard = before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return before


def watch_process(pid: int) -> int | None:
    """Return a descriptor that becomes readable when a process ends; None if unsupported."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _as_exit(returncode: int) -> Exit:
    if returncode >= 0:
        return Exit(code=returncode)
    try:
        return Exit(signal=signal.Signals(-returncode).name)
    except ValueError:
        return Exit(signal=str(-returncode))
