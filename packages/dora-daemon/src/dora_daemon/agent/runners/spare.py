"""The daemon's end of a spare runner (`dora_daemon.runner.spare`)."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress

from dora_config.access import environ_without_token
from dora_config.spawn_argv import run_module
from dora_config.zygote_process import ROOM, ROOM_FOR_WORDS
from dora_daemon.runner.process.runners_unit import UNIT_VARIABLE

SWITCH = "DORA_SPARE_RUNNER"
"""Set to 0, it turns spare runners off."""
DELAY = 10.0
"""Seconds from a start, or the last use, to the start of the next spare.

Its imports delay messages of the started dataflow by 3 ms each time that they share a core; a low
priority does not prevent it where Linux groups processes by session (autogroup).
"""
IDLE_DELAY = 2.0
"""Seconds to the start of the next spare while no dataflow runs."""
LIMIT = 1.0
"""Seconds for a spare to accept its directory."""
MIN_MEMORY = 2 << 30
"""Bytes of memory that a machine needs at least for a spare."""

logger = logging.getLogger("dora.daemon")


class SpareRunner:
    """Holds at most one runner that waits. Use it inside the event loop."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None

    def prepare(self, *, idle: bool = False) -> None:
        """Start a spare after a delay, and another one after its use. ``idle``: no dataflow runs.

        Nothing happens if that is turned off or the machine has little memory.
        """
        unit = UNIT_VARIABLE in os.environ  # a spare would be in the unit before its dataflow
        off = unit or os.environ.get(SWITCH, "").strip().lower() in ("0", "false", "no", "off")
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if off or memory < MIN_MEMORY:
            return
        if self._timer is not None:
            self._timer.cancel()
        delay = IDLE_DELAY if idle else DELAY
        self._timer = asyncio.get_running_loop().call_later(delay, self._start)

    def _start(self) -> None:
        if self._process is not None:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [
                        *run_module("dora_daemon.runner"),
                        "--spare",
                        str(theirs.fileno()),
                        ROOM_FOR_WORDS,
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=environ_without_token() | ROOM,
                    start_new_session=True,
                    pass_fds=(theirs.fileno(),),
                )
            except OSError as error:
                ours.close()
                logger.debug("no spare runner: %s", error)
                return
        self._channel = ours

    async def take(
        self, directory: str, env: Mapping[str, str], descriptors: tuple[int, int]
    ) -> subprocess.Popen[bytes] | None:
        """Return the spare as the runner of a directory; None: start another process."""
        process, channel = self._process, self._channel
        self._process = self._channel = None
        if self._timer is not None:
            self.prepare()
        if process is None or channel is None:
            return None
        order = json.dumps({"directory": directory, "env": dict(env)}).encode()
        loop = asyncio.get_running_loop()
        with channel:
            try:
                if channel.recv(16) == b"ready":
                    socket.send_fds(channel, [order], descriptors)
                    async with asyncio.timeout(LIMIT):
                        if await loop.sock_recv(channel, 16) == b"taken":
                            channel.send(b"go")
                            return process
            except (OSError, TimeoutError) as error:
                logger.debug("the spare runner is not used: %r", error)
        self._kill(process)
        return None

    def close(self) -> None:
        """End the spare."""
        if self._timer is not None:
            self._timer.cancel()
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            self._kill(self._process)
        self._process = self._channel = None

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        with suppress(OSError):
            process.kill()
        process.wait()
