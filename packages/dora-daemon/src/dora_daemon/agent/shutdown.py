"""Whether the machine is being shut down or rebooted, asked of its init system."""

from __future__ import annotations

import shutil
import subprocess
from typing import Final

import anyio

ANSWER_TIMEOUT: Final = 2.0
"""Seconds for the init system to answer; it is busy at that time."""


async def system_is_stopping() -> bool:
    """Whether a SIGTERM comes from a machine that goes down, not from somebody who stops a service.

    What runs when a machine goes down should run again when it comes back. Where nobody can tell
    (no systemd, no runlevel), it is taken for a stop.
    """
    state = await _answer("systemctl", "is-system-running")
    if state is not None:
        return state == "stopping"
    runlevel = await _answer("runlevel")
    return runlevel is not None and runlevel.split()[-1:] in (["0"], ["6"])


async def _answer(*command: str) -> str | None:
    """What a command prints; ``None``: it is not there, does not answer, or has nothing to say."""
    if shutil.which(command[0]) is None:
        return None
    try:
        with anyio.fail_after(ANSWER_TIMEOUT):
            done = await anyio.run_process(command, check=False, stderr=subprocess.DEVNULL)
    except (OSError, TimeoutError):
        return None
    return done.stdout.decode(errors="replace").strip() or None
