"""Forks ``dora`` commands and runners from a process that has imported their modules.

The import of its modules is most of the work of a short command. Each process of the tests has one
server. What another variable could affect at its start is started as a program.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import io
import json
import os
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TextIO

DORA = Path(sys.executable).with_name("dora")
"""The console script beside the interpreter that runs the tests."""

PACKAGES = (
    *("dora_config", "dora_cli", "dora_coordinator", "dora_daemon"),
    *("dora_cluster", "dora_recordings", "dora_ui"),
)
NOT_LOADED = ("dora_cli.self_test.", "dora_daemon.inspection.", "dora_daemon.link.io.")
"""Modules of other programs, which import libraries that start threads."""
NETWORK = "/proc/thread-self/ns/net"
READ_LATER = (
    *("DORA_", "XDG_", "GIT_", "UV_", "PIP_", "PYTEST_"),
    *("HOME", "PATH", "PWD", "OLDPWD", "COLUMNS", "LINES", "TMPDIR"),
)
"""Beginnings of the variables that no module reads when it is imported."""

_HOME_NETWORK = os.open(NETWORK, os.O_RDONLY) if sys.platform == "linux" else -1
"""Network of this process before any test; the server would keep another one from ending."""
_ABOVE = 200
"""Descriptors of a new process that it is about to move."""
_PROGRAM = "import sys; sys.path[0] = sys.argv[1]; from support.fork_server import serve; serve()"


@dataclass
class Forked:
    """A process of the server, like a ``subprocess.Popen``."""

    args: list[str]
    pid: int
    _ended: int = field(repr=False)
    returncode: int | None = None

    def poll(self) -> int | None:
        return self._read(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._read(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _read(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            poller = select.poll()
            poller.register(self._ended, select.POLLIN)
            if poller.poll(None if timeout is None else timeout * 1000):
                self.returncode = _read_number(self._ended)
                os.close(self._ended)
        return self.returncode


Process = Forked | subprocess.Popen[bytes]


@dataclass(frozen=True)
class _Server:
    process: subprocess.Popen[bytes]
    channel: socket.socket
    environ: Mapping[str, str]


@cache
def _server() -> _Server:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    tests = str(Path(__file__).parents[1])
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, tests, str(theirs.fileno()), str(_HOME_NETWORK)],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno(), _HOME_NETWORK],
            start_new_session=True,
        )

    @atexit.register
    def end() -> None:
        ours.close()
        process.wait()

    return _Server(process, ours, dict(os.environ))


def pid() -> int | None:
    """Return the process id of the server, which outlives tests; None before its start."""
    return _server().process.pid if _server.cache_info().currsize else None


def descriptor() -> int:
    """Return the descriptor of its socket; -1 before its start."""
    return _server().channel.fileno() if _server.cache_info().currsize else -1


def start(
    words: Sequence[str],
    streams: Sequence[int],
    *,
    module: str | None = None,
    cwd: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    passed: Sequence[int] = (),
) -> Process:
    """Start ``dora WORDS``, or ``python -P -m MODULE WORDS``, in a session of its own.

    ``streams``: its standard input, output and error. ``passed``: other descriptors that it has.
    """
    server = _server()
    names = {name for name, _ in environ.items() ^ server.environ.items()}
    if not all(name.startswith(READ_LATER) for name in names):
        command = [str(DORA)] if module is None else [sys.executable, "-P", "-m", module]
        standard, output, error = streams
        return subprocess.Popen(
            [*command, *words],
            cwd=cwd,
            env=environ,
            stdin=standard,
            stdout=output,
            stderr=error,
            pass_fds=passed,
            start_new_session=True,
        )
    request = {
        "words": list(words),
        "module": module,
        "cwd": str(cwd or Path.cwd()),
        "environ": dict(environ),
        "numbers": [0, 1, 2, *passed],
        "files": resource.getrlimit(resource.RLIMIT_NOFILE),
    }
    ended, theirs = os.pipe()
    with open(theirs, "wb"), open(NETWORK) as network:
        data = json.dumps(request).encode()
        descriptors = [theirs, network.fileno(), *streams, *passed]
        socket.send_fds(server.channel, [data], descriptors)
    return Forked([module or "dora", *words], _read_number(ended), ended)


def _write_number(descriptor: int, number: int) -> None:
    os.write(descriptor, number.to_bytes(4, "little", signed=True))


def _read_number(descriptor: int) -> int:
    data = os.read(descriptor, 4)
    if not data:
        raise AssertionError("the process that forks commands has ended; see its output")
    return int.from_bytes(data, "little", signed=True)


# --- the server ---------------------------------------------------------------------------------


def serve() -> None:
    """Fork a process for each request until the tests end."""
    number, home = map(int, sys.argv[2:])
    _enter(home)
    os.close(home)
    _load_modules()
    channel = socket.socket(fileno=number)
    running: dict[int, tuple[int, int]] = {}
    poller = select.poll()
    poller.register(number, select.POLLIN)
    while True:
        for ready, _ in poller.poll():
            if ready == number:
                data, descriptors, _, _ = socket.recv_fds(channel, 1 << 20, 10)
                if not data:
                    os._exit(0)
                pid = os.fork()
                if pid == 0:
                    channel.close()
                    for pidfd, (_, ended) in running.items():
                        os.close(pidfd)
                        os.close(ended)
                    request = json.loads(data)
                    _become(request, descriptors)
                    _run(request["module"])
                ended, *streams = descriptors
                for stream in streams:
                    os.close(stream)
                _write_number(ended, pid)
                pidfd = os.pidfd_open(pid)
                running[pidfd] = pid, ended
                poller.register(pidfd, select.POLLIN)
            else:
                poller.unregister(ready)
                pid, ended = running.pop(ready)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with suppress(BrokenPipeError):
                    _write_number(ended, code)
                os.close(ended)
                os.close(ready)


def _load_modules() -> None:
    import gc
    from importlib import import_module
    from importlib.util import find_spec
    from pkgutil import walk_packages

    for package in filter(find_spec, PACKAGES):
        for found in walk_packages(import_module(package).__path__, f"{package}."):
            if not found.name.startswith(NOT_LOADED) and not found.name.endswith("__main__"):
                import_module(found.name)
    gc.collect()
    gc.freeze()


def _enter(network: int) -> None:
    """Enter a network unless this process is there, since only root may."""
    if os.fstat(network).st_ino != os.stat(NETWORK).st_ino:  # noqa: PTH116
        assert ctypes.CDLL(None).setns(network, 0) == 0, "cannot enter the network of the test"


def _become(request: Mapping[str, Any], descriptors: Sequence[int]) -> None:
    """Make this process what the command would find as a new program."""
    os.setsid()
    os.environ.clear()
    os.environ.update(request["environ"])
    tempfile.tempdir = None
    os.chdir(request["cwd"])
    _enter(descriptors[1])
    copies = [fcntl.fcntl(one, fcntl.F_DUPFD, _ABOVE) for one in descriptors[2:]]
    for one in descriptors:
        os.close(one)
    for number, copy in zip(request["numbers"], copies, strict=True):
        os.dup2(copy, number)
        os.close(copy)
    resource.setrlimit(resource.RLIMIT_NOFILE, request["files"])
    sys.path[0] = str(DORA.parent)
    sys.argv[:] = [str(DORA), *request["words"]]
    sys.stdin = open(0, closefd=False, errors=sys.stdin.errors)  # noqa: SIM115
    sys.stdout = _writer(1, sys.stdout.errors)
    sys.stderr = _writer(2, sys.stderr.errors)


def _run(module: str | None) -> NoReturn:
    """Run the program and end without a teardown of modules, like ``multiprocessing``."""
    from dora_config.launcher import main

    code: int | str | None
    try:
        if module is None:
            code = main()
        else:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            code = 0
    except SystemExit as ended:
        code = ended.code
    except BaseException:  # noqa: BLE001 - as the interpreter does
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        with suppress(OSError, ValueError):  # the command has reported it
            sys.stdout.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _writer(number: int, errors: str | None) -> TextIO:
    """Return a stream as an interpreter makes it at its start."""
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    return io.TextIOWrapper(
        open(number, "wb", buffering=0 if unbuffered else -1, closefd=False),
        encoding=sys.stdout.encoding,
        errors=errors,
        newline="\n",
        line_buffering=number == 2 or os.isatty(number),
        write_through=unbuffered,
    )
