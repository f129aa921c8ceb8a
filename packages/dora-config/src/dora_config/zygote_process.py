"""Start of the process that forks nodes (`dora_node_api.zygote`).

`dora run` starts it before it imports its own modules, so that both import at the same time. This
module imports nothing that the launcher does not need anyway.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Mapping
from importlib.util import find_spec

from dora_config.dataflow.variables import is_private

SWITCH = "DORA_NODE_ZYGOTE"
"""Environment variable; 0 disables the forking of nodes."""
CHANNEL = 3
"""Descriptor of the zygote's socket."""
_PROGRAM = (
    "import sys; sys.path[:] = [*sys.path[not sys.flags.safe_path :], sys.argv[1]];"
    " from dora_node_api.zygote import main; main()"
)
ROOM_FOR_WORDS = "." * 1000
ROOM = {"_DORA_ROOM": "." * (1 << 15)}
"""Last argument and variable of a process whose command line and environment are later replaced."""
_NON_TEMPORAL = "glibc.cpu.x86_non_temporal_threshold"
_TUNABLES = f"{_NON_TEMPORAL}=0x400000"
"""Copies of 4 MiB and more bypass the CPU caches, which takes a quarter less time for payloads of
16 or 40 MiB. The default threshold of glibc, about three quarters of a cache, is rarely reached."""

_DEFAULT_SIGNALS = (
    *(signal.SIGPIPE, signal.SIGXFSZ),
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP),  # ignored after a script's `&`, or nohup
)
"""Signals whose default actions are restored in the zygote, and so in the nodes that it forks."""

_early: list[tuple[int, socket.socket]] = []


def with_tunables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables, with those that Python and glibc read when a node starts."""
    own = {"PYTHONUNBUFFERED": "1"}
    tunables = variables.get("GLIBC_TUNABLES", "")
    if _NON_TEMPORAL not in tunables:
        own["GLIBC_TUNABLES"] = f"{tunables}:{_TUNABLES}" if tunables else _TUNABLES
    return {**variables, **own}


def is_enabled(environ: Mapping[str, str]) -> bool:
    """Return whether nodes may be forked on this system."""
    off = environ.get(SWITCH, "").strip().lower() in ("0", "false", "no", "off")
    return sys.platform == "linux" and not off and not getattr(sys, "frozen", False)


def start(environ: Mapping[str, str]) -> tuple[int, socket.socket] | None:
    """Start a zygote with the environment of nodes; return its pid and this end of its socket.

    It ends with the thread that calls this. None if it cannot be started.
    """
    package = find_spec("dora_node_api")
    if not is_enabled(environ) or package is None or package.origin is None:
        return None
    location = os.path.dirname(os.path.dirname(package.origin))  # noqa: PTH120 - slow to import
    argv = [sys.executable, "-u", "-c", _PROGRAM, location, str(os.getpid()), ROOM_FOR_WORDS]
    variables = {name: text for name, text in environ.items() if not is_private(name)}
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    null = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
    with theirs:
        try:
            pid = os.posix_spawn(
                sys.executable,
                argv,
                with_tunables(variables) | ROOM,
                file_actions=[*null, (os.POSIX_SPAWN_DUP2, theirs.fileno(), CHANNEL)],
                setsigdef=_DEFAULT_SIGNALS,
            )
        except OSError:
            ours.close()
            return None
    return pid, ours


def start_early(path: str | None = None) -> None:
    """Start a zygote; if a file is given, a dataflow or a plan, only for several Python nodes."""
    if path is None:
        _keep(start(os.environ))
        return
    try:
        with open(path, "rb") as file:
            text = file.read(1 << 20)
    except OSError:
        return
    if text.count(b".py") > 1:
        _keep(start(os.environ))


def _keep(started: tuple[int, socket.socket] | None) -> None:
    if started is not None:
        _early.append(started)


def take_early() -> tuple[int, socket.socket] | None:
    """Return the zygote that :func:`start_early` has started; None at further calls."""
    return _early.pop() if _early else None
