"""A port that a machine opens temporarily, to test which other machines reach it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress

from dora_cluster.machines.remote_machine import RemoteMachine
from dora_cluster.remote_program.protocol import RemoteProblem, decode_reply
from dora_config.errors import DoraError

LISTEN_TIME = 40.0
"""Seconds after which a machine stops listening if its connection is lost."""


class PortListener:
    """A machine that listens on a port, and answers pings there, until ``end``."""

    def __init__(self, remote: RemoteMachine, ports: Sequence[int], secret: str) -> None:
        """``ports``: first and last port of a range, whose first free port is used; ``end`` closes
        the connection of ``remote``.
        """
        self.remote = remote
        self._ports = list(ports)
        self._secret = secret
        self._rest = b""
        self._port: int | None = None
        self._changed = threading.Event()
        self._ended = False
        self.problem: str | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.remote.call(
                "network.answer",
                on_output=self._take,
                ports=self._ports,
                seconds=LISTEN_TIME,
                secret=self._secret,
            )
        except DoraError as error:
            if not self._ended:
                self.problem = str(error)
        self._changed.set()

    def _take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            with suppress(RemoteProblem, ValueError, KeyError):  # output of a login shell
                self._port = int(decode_reply(line)["port"])
                self._changed.set()

    def port(self, within: float) -> int | None:
        """Return the port at which it answers; None if it has none after ``within`` seconds."""
        self._changed.wait(within)
        return self._port

    def end(self) -> None:
        self._ended = True
        self.remote.connection.close()
        self._thread.join(5)
