"""Holds the lock of a machine until its input ends.

The lock is the name of an abstract socket, which the kernel frees when its holder ends for any
reason. The holder ends when its input ends (the connection was closed) or is silent for ``lease``
seconds (the connection was lost, or the command was suspended). Other commands connect to the
socket: they receive the facts about the holder, and the end of the connection when it ends.
"""

from __future__ import annotations

import errno
import math
import os
import pwd
import select
import socket
import struct
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from dora_cli.remote_program.protocol import (
    Problem,
    decode_reply,
    encode_result,
    send_result,
)

ANSWER_TIMEOUT = 5.0
RETRY_INTERVAL = 0.1
"""Seconds between two attempts to connect to a holder that does not accept connections."""
MAX_ANSWER = 64 * 1024
"""Bytes of the facts about a holder."""
_FACTS = (
    ("key", str),
    ("command", str),
    ("operator", str),
    ("pid", int),
    ("since", int | float),
)
MAX_WAITING = 64
"""Commands that are connected to the holder; as many again are in the queue of its socket."""


class InputEnded(Exception):
    """The connection was closed, or was silent for too long."""


class LeasedInput:
    """Standard input, which must receive a byte from the command within each ``lease``."""

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._until = time.monotonic() + lease

    def wait(
        self, others: Iterable[socket.socket] = (), *, within: float = math.inf
    ) -> list[socket.socket]:
        """Return the sockets that are ready, none after ``within`` seconds; raises InputEnded."""
        sockets = {one.fileno(): one for one in others}
        poll = select.poll()
        for descriptor in (0, *sockets):
            poll.register(descriptor, select.POLLIN)
        limit = time.monotonic() + within
        while True:
            now = time.monotonic()
            if now >= self._until:
                raise InputEnded
            if now >= limit:
                return []
            rest = min(self._until, limit) - now
            ready = [descriptor for descriptor, _ in poll.poll(rest * 1000)]
            if 0 in ready:
                if not os.read(0, 4096):
                    raise InputEnded
                self._until = time.monotonic() + self._lease
            if found := [sockets[one] for one in ready if one in sockets]:
                return found


def acquire(name: str, info: dict[str, Any], wait: bool, lease: float) -> None:
    """Acquire and hold the lock ``name``; ``info``: shown to others.

    Sends ``{"held": true}``, with ``"shared": true`` if a lock with the same ``key`` is held;
    ``{"held": false, "holder": ...}``; or, for each holder that it waits for,
    ``{"waiting": holder}``. Each contains the ``machine``. Raises Problem.
    """
    standard_input = LeasedInput(lease)
    address = f"\0{name}"
    with suppress(InputEnded, BrokenPipeError):
        while (listener := _bind(address)) is None:
            with socket.socket(socket.AF_UNIX) as link:
                link.setblocking(False)
                try:
                    link.connect(address)
                    _require_trusted(link)
                    holder = _holder(link, standard_input)
                except (ConnectionError, BlockingIOError):
                    # the holder has just ended, does not listen yet, or its queue is full
                    standard_input.wait(within=RETRY_INTERVAL)
                    continue
                if holder is not None and holder["key"] == info["key"]:
                    _send({"held": True, "shared": True})
                    return
                if not wait:
                    _send({"held": False, "holder": holder})
                    return
                _send({"waiting": holder})
                _wait_for_end(link, standard_input)
        _serve(listener, info | {"since": time.time()}, standard_input)


def _send(answer: dict[str, Any]) -> None:
    send_result(answer | {"machine": _machine()})


def _machine() -> str:
    """Return a text that identifies the machine."""
    parts = [os.uname().nodename]
    for path in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        with suppress(OSError):
            parts.append(Path(path).read_text().strip())
    return " ".join(parts)


def _bind(address: str) -> socket.socket | None:
    """Return the socket that listens at the address, None if another has it; raises Problem."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(address)
        listener.listen(MAX_WAITING)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise Problem(f"the machine cannot be locked: {error.strerror or error}") from error
    return listener


def _holder(link: socket.socket, standard_input: LeasedInput) -> dict[str, Any] | None:
    """Return the facts about the holder, None if it does not answer as holders do.

    Raises ConnectionError when it ends.
    """
    text = b""
    while not text.endswith(b"\n"):
        if not standard_input.wait([link], within=ANSWER_TIMEOUT):
            return None
        if not (piece := link.recv(4096)):
            raise ConnectionResetError
        text += piece
        if len(text) > MAX_ANSWER:
            return None
    try:
        facts = decode_reply(text)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    valid = all(isinstance(facts.get(name), kind) for name, kind in _FACTS)
    return facts if valid and math.isfinite(facts["since"]) else None


def _require_trusted(link: socket.socket) -> None:
    """Raise Problem unless root or this account holds the lock: any account can take the name."""
    size = struct.calcsize("3i")
    pid, uid, _ = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    if uid in (0, os.geteuid()):
        return
    try:
        account = pwd.getpwuid(uid).pw_name
    except KeyError:
        account = str(uid)
    raise Problem(
        f'process {pid} of another account of the machine, "{account}", holds the lock for `dora '
        f"cluster`; wait until that account's command has ended, or end it: sudo kill {pid}"
    )


def _wait_for_end(link: socket.socket, standard_input: LeasedInput) -> None:
    """Wait until the holder has ended; only facts that arrive late precede it."""
    with suppress(ConnectionError):
        more = True
        while more:
            standard_input.wait([link])
            more = bool(link.recv(4096))


def _serve(listener: socket.socket, info: dict[str, Any], standard_input: LeasedInput) -> None:
    """Hold the lock and send ``info`` to each command that connects; raises InputEnded."""
    _send({"held": True})
    text = encode_result(info)
    waiting: set[socket.socket] = set()
    while True:
        accepting = [listener] if len(waiting) < MAX_WAITING else []
        for ready in standard_input.wait([*accepting, *waiting]):
            if ready is not listener:  # it has ended: a waiting command sends nothing
                waiting.discard(ready)
                ready.close()
                continue
            link, _ = listener.accept()
            try:
                link.settimeout(ANSWER_TIMEOUT)
                link.sendall(text)
                waiting.add(link)
            except OSError:
                link.close()
