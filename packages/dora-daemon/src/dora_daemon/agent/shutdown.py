"""Whether the machine is being shut down or rebooted, according to its init system."""

from __future__ import annotations

import shutil
import subprocess
from typing import Final

import anyio

ANSWER_TIMEOUT: Final = 2.0
"""Seconds for the init system, which is busy during a shutdown."""


async def system_is_stopping() -> bool:
    """Whether a SIGTERM was sent because of a shutdown, after which dataflows continue.

    False if that is unknown: no systemd, no runlevel.
    """
    state = await _output("systemctl", "is-system-running")
    if state is not None:
        return state == "stopping"
    runlevel = await _output("runlevel")
    return runlevel is not None and runlevel.split()[-1:] in (["0"], ["6"])


async def _output(*command: str) -> str | None:
    """Return what a command prints, None if it is missing, too slow or prints nothing."""
    if shutil.which(command[0]) is None:
        return None
    try:
        with anyio.fail_after(ANSWER_TIMEOUT):
            done = await anyio.run_process(command, check=False, stderr=subprocess.DEVNULL)
    except (OSError, TimeoutError):
        return None
    return done.stdout.decode(errors="replace").strip() or None
