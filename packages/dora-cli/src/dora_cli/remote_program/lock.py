"""Holds the lock of a machine until its input ends.

The lock is the name of an abstract socket, which the kernel frees when its holder ends for any
reason. The holder ends when its input ends (the connection was closed) or is silent for ``lease``
seconds (the connection was lost, or the command was suspended). Other commands connect to the
socket: they receive the holder, and the end of the connection when the lock is free.
"""

from __future__ import annotations

import os
import select
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from dora_cli.remote_program.protocol import Commands, decode_reply, encode_result, send_result

ANSWER_TIMEOUT = 5.0


class InputEnded(Exception):
    """The connection was closed, or was silent for too long."""


class Input:
    """Signs of life from the command."""

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._until = time.monotonic() + lease

    def wait(self, other: socket.socket, *, within: float | None = None) -> bool:
        """Return whether ``other`` is ready before ``within``; raises InputEnded."""
        limit = None if within is None else time.monotonic() + within
        while True:
            now = time.monotonic()
            if now >= self._until:
                raise InputEnded
            if limit is not None and now >= limit:
                return False
            rest = min(self._until, limit or self._until) - now
            ready, _, _ = select.select([0, other.fileno()], [], [], rest)
            if 0 in ready:
                if not os.read(0, 4096):
                    raise InputEnded
                self._until = time.monotonic() + self._lease
            if other.fileno() in ready:
                return True


def acquire(name: str, info: dict[str, Any], wait: bool, lease: float) -> None:
    """Acquire and hold the lock ``name``; ``info``: shown to others.

    Sends ``{"held": true}``, ``{"held": false, "holder": ...}`` or, for each holder that it waits
    for, ``{"waiting": holder}``. Each contains the ``machine``.
    """
    signs = Input(lease)
    address = f"\0{name}"
    with suppress(InputEnded, BrokenPipeError):
        while (listener := _bind(address)) is None:
            with socket.socket(socket.AF_UNIX) as link:
                try:
                    holder = _holder(link, address, signs)
                except ConnectionError:  # it has just ended
                    continue
                if holder is not None and holder["key"] == info["key"]:
                    _send({"held": True, "shared": True})
                    return
                if not wait:
                    _send({"held": False, "holder": holder})
                    return
                _send({"waiting": holder})
                _wait_for_end(link, signs)
        _serve(listener, info | {"since": time.time()}, signs)


def _send(answer: dict[str, Any]) -> None:
    send_result(answer | {"machine": _machine()})


def _machine() -> str:
    """Return a text that identifies the machine."""
    parts = [os.uname().nodename]
    for path in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        with suppress(OSError):
            parts.append(Path(path).read_text().strip())
    return " ".join(parts)


def _bind(name: str) -> socket.socket | None:
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(name)
    except OSError:
        listener.close()
        return None
    listener.listen(64)
    return listener


def _holder(link: socket.socket, name: str, signs: Input) -> dict[str, Any] | None:
    """Return the holder, None if it does not answer; raises ConnectionError for a free lock."""
    link.connect(name)
    text = b""
    while not text.endswith(b"\n"):
        if not signs.wait(link, within=ANSWER_TIMEOUT):
            return None
        if not (piece := link.recv(4096)):
            raise ConnectionResetError
        text += piece
    return decode_reply(text)


def _wait_for_end(link: socket.socket, signs: Input) -> None:
    """Wait until the holder has ended; it sends nothing more."""
    with suppress(ConnectionError):
        while signs.wait(link) and link.recv(4096):
            pass


def _serve(listener: socket.socket, info: dict[str, Any], signs: Input) -> None:
    _send({"held": True})
    text = encode_result(info)
    waiting = []
    while True:
        if signs.wait(listener):
            link, _ = listener.accept()
            with suppress(OSError):
                link.settimeout(ANSWER_TIMEOUT)
                link.sendall(text)
                waiting.append(link)


COMMANDS: Commands = {"acquire": acquire}
