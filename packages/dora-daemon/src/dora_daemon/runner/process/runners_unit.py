"""The systemd unit that holds the runners of a daemon, apart from the daemon's own unit.

When a daemon restarts, systemd warns about every other process in the daemon's unit. Runners
outlive their daemon on purpose, so they move to a unit of their own before they start a node.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import MutableMapping
from typing import Final

UNIT_VARIABLE: Final = "DORA_RUNNERS_UNIT"
"""Manager and unit, as ``system:NAME.service`` or ``user:NAME.service``. The unit file of a daemon
sets it; nodes do not inherit it."""
TIMEOUT: Final = 3.0
"""Seconds for systemd to answer; without an answer the runner stays in its present unit."""
_ATTACH: Final = (
    *("--quiet", "--timeout=2", "call"),
    *("org.freedesktop.systemd1", "/org/freedesktop/systemd1"),
    *("org.freedesktop.systemd1.Manager", "AttachProcessesToUnit", "ssau"),
)
"""systemd lets users move their own processes to a delegated unit that runs as the same user."""


class EnteringUnit:
    """The move of this process to a unit, which :func:`enter` begins; it takes milliseconds."""

    def __init__(self, unit: str, move: subprocess.Popen[str] | None) -> None:
        self._unit = unit
        self._move = move

    @property
    def begun(self) -> bool:
        return self._move is not None

    def finish(self) -> None:
        """Wait for the end of the move; call this before the process starts another one."""
        if self._move is None:
            return
        with self._move as move:
            try:
                _, problem = move.communicate(timeout=TIMEOUT)
            except subprocess.TimeoutExpired:
                move.kill()
                problem = f"systemd did not answer within {TIMEOUT:g} s"
        if move.returncode != 0:
            _warn(self._unit, problem.strip() or f"busctl ended with code {move.returncode}")


def enter(environ: MutableMapping[str, str]) -> EnteringUnit:
    """Begin to move this process to the unit that ``environ`` names, if it names one."""
    manager, _, unit = environ.pop(UNIT_VARIABLE, "").partition(":")
    if not unit:
        return EnteringUnit("", None)
    words = ["busctl", f"--{manager}", *_ATTACH, unit, "", "1", str(os.getpid())]
    try:
        move = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
    except OSError as error:
        _warn(unit, f"{words[0]}: {error.strerror}")
        move = None
    return EnteringUnit(unit, move)


def _warn(unit: str, problem: str) -> None:
    """Log a failed move, after which systemd warns about this process when the daemon restarts."""
    print(f"cannot enter {unit}: {problem}", file=sys.stderr, flush=True)
