"""Reads which `dora cluster` command has locked this machine, without waiting.

The lock is the name of an abstract socket; its holder sends one line and keeps the connection open
until it ends. The holder is `dora_cli.remote_program.lock`. Any account can take the name, so only
the text of root and of the daemon's own account is shown.
"""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from typing import Any, Final

from pydantic import ValidationError

from dora_config.protocol.envelope import clean_text
from dora_config.protocol.snapshot import MachineOperation
from dora_daemon.runner.nodes.socket import peer_credentials

NAME: Final = "dora-cluster-lock"
MAX_LINE: Final = 16 * 1024
MAX_TEXT: Final = 200
_PIECE: Final = 4096
_MAX_READS: Final = MAX_LINE // _PIECE + 1


class MachineLockReader:
    """Keeps at most one connection to the holder."""

    def __init__(self, name: str = NAME) -> None:
        self._address = f"\0{name}"
        self._link: socket.socket | None = None
        self._line = b""
        self._found: MachineOperation | None = None

    def holder(self) -> MachineOperation | None:
        """Return the command that holds the lock; None also until it has answered."""
        if self._link is None:
            self._connect()
        if self._link is not None:
            try:
                self._receive(self._link)
            except BlockingIOError:
                pass
            except OSError:
                self.close()
        return self._found

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._link is not None:
            self._link.close()
        self._link, self._line, self._found = None, b"", None

    def _connect(self) -> None:
        link = socket.socket(socket.AF_UNIX)
        link.setblocking(False)
        try:
            link.connect(self._address)
            _, user = peer_credentials(link)
        except OSError:  # the lock is free, or this system has no abstract sockets
            link.close()
            return
        if user in (0, os.geteuid()):
            self._link = link
        else:
            link.close()

    def _receive(self, link: socket.socket) -> None:
        """Read what has arrived, at most a line.

        Raises BlockingIOError, and another OSError if the holder has ended or sends more.
        """
        for _ in range(_MAX_READS):
            data = link.recv(_PIECE)
            if not data:
                raise ConnectionResetError
            self._line += data
            line, end, more = self._line.partition(b"\n")
            if more or len(self._line) > MAX_LINE:
                raise ConnectionAbortedError
            if end:
                self._found = _operation(line)


def _operation(line: bytes) -> MachineOperation | None:
    """Return the operation of a reply; None for another text."""
    with suppress(ValueError, RecursionError, KeyError, TypeError, ValidationError):
        holder: dict[str, Any] = json.loads(line)["result"]
        return MachineOperation(
            command=clean_text(holder["command"], limit=MAX_TEXT),
            operator=clean_text(holder["operator"], limit=MAX_TEXT),
            since=holder["since"],
        )
    return None
