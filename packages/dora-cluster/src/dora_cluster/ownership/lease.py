"""The lease of one machine for one command, renewed until its end."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from dora_cluster.connection import MachineConnection
from dora_cluster.remote_call import call
from dora_config.errors import DoraError
from dora_config.process_identity import boot_id

LEASE = 60.0
"""Seconds after the last renewal for which other commands wait."""
RENEW_INTERVAL = 10.0
"""Seconds between two renewals."""
_ANSWER_TIMEOUT = 10.0
"""Seconds for a machine to renew or release a lease."""
_RENEW = 'grep -qs "$1" "$2" && touch -c "$2"'


def this_computer() -> str:
    """Return a text that identifies the process numbers of this computer; empty without /proc."""
    with suppress(OSError):
        return f"{boot_id()} {os.readlink('/proc/self/ns/pid')}"
    return ""


class Lease:
    """Lease of a machine from ``take`` to ``end``; ``lost`` is called if the lease expires."""

    def __init__(
        self, connection: MachineConnection, info: Mapping[str, Any], lost: Callable[[], None]
    ) -> None:
        """``info``: shown to other commands; all leases of one command have the same ``key``."""
        self._connection = connection
        self._info = dict(info)
        self._lost = lost
        self._ended = threading.Event()
        self._until = 0.0
        self._thread: threading.Thread | None = None

    def take(self) -> dict[str, Any]:
        """Return the answer of the machine, with the ``holder`` if another command has the lease.

        Raises DoraError.
        """
        answer = self._request(None)
        holder = answer["holder"]
        if holder is not None and _has_ended(holder):
            answer = self._request(holder["key"])
        if answer["holder"] is None and answer["path"] is not None:
            words = (["sh", "-c", _RENEW, "sh", self._info["key"], answer["path"]],)
            self._thread = threading.Thread(target=self._renew, args=words, daemon=True)
            self._thread.start()
        return answer

    def _request(self, ended: str | None) -> dict[str, Any]:
        self._until = time.monotonic() + LEASE
        return call(self._connection, "lease.take", info=self._info, seconds=LEASE, ended=ended)

    def _renew(self, words: list[str]) -> None:
        while not self._ended.wait(RENEW_INTERVAL):
            until, code = time.monotonic() + LEASE, -1
            with suppress(DoraError):
                code = self._connection.run(words, timeout=_ANSWER_TIMEOUT).code
            if code == 0:
                self._until = until
            elif self._ended.is_set():
                return
            elif code > 0 or time.monotonic() > self._until:
                self._lost()
                return

    def end(self) -> None:
        """Release the lease, if the machine can be reached."""
        self._ended.set()
        if self._thread is not None:
            with suppress(DoraError):
                call(
                    self._connection,
                    "lease.give_back",
                    key=self._info["key"],
                    seconds=LEASE,
                    timeout=_ANSWER_TIMEOUT,
                )


def _has_ended(holder: Mapping[str, Any]) -> bool:
    """Return whether the command ran on this computer and does not run any more."""
    if not holder["computer"] or holder["computer"] != this_computer():
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # the process belongs to another account
        pass
    return False
