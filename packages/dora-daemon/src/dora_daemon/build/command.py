"""Runs one command of a build in a process group of its own.

Cancellation ends the whole group: SIGTERM, and SIGKILL after `STOP_GRACE` seconds.
"""

from __future__ import annotations

import codecs
import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio.abc import ByteReceiveStream, Process

STOP_GRACE = 3.0
"""Seconds between SIGTERM and SIGKILL when a build is cancelled."""
HELD_OPEN_GRACE = 2.0
"""Seconds for which a background process may hold the output open after the command ended."""
TAIL_LINES = 40
"""Last lines of output that are kept for an error."""
MAX_LINE = 10_000
"""Characters of a line that are kept."""

OnLine = Callable[[str], None]
OnCommand = Callable[[int], object]
"""Called with the pid of each started command, which leads a session of its own."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """Exit code of a command (negative: signal number) and its last lines of output."""

    exit_code: int
    tail: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return self.exit_code == 0

    def __str__(self) -> str:
        if self.exit_code >= 0:
            return f"exit code {self.exit_code}"
        try:
            return f"ended by {signal.Signals(-self.exit_code).name}"
        except ValueError:
            return f"ended by signal {-self.exit_code}"


async def run_command(
    words: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    on_line: OnLine | None = None,
    on_command: OnCommand | None = None,
) -> CommandResult:
    """Run `words` without a shell and pass each line of output to `on_line`.

    Raises OSError if the program cannot be started.
    """
    tail: deque[str] = deque(maxlen=TAIL_LINES)

    def keep(line: str) -> None:
        tail.append(line)
        if on_line is not None:
            on_line(line)

    process = await anyio.open_process(
        list(words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=cwd,
        env=dict(env),
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        if on_command is not None:
            on_command(process.pid)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_stop_waiting_for_output, process, tasks.cancel_scope)
            await _read_lines(process.stdout, keep)
            await process.wait()
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process)
    return CommandResult(process.returncode or 0, tuple(tail))


async def _read_lines(stream: ByteReceiveStream, keep: OnLine) -> None:
    """Read lines until the end; the carriage returns of a progress bar end lines, too."""
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    pending = ""
    async for chunk in stream:
        *lines, pending = (pending + decode(chunk)).replace("\r", "\n").split("\n")
        pending = pending[:MAX_LINE]
        for line in lines:
            if line.strip():
                keep(line.rstrip()[:MAX_LINE])
    if pending.strip():
        keep(pending.rstrip())


async def _stop_waiting_for_output(process: Process, scope: anyio.CancelScope) -> None:
    """Cancel the reading of output that a background process holds open."""
    await process.wait()
    await anyio.sleep(HELD_OPEN_GRACE)
    scope.cancel()


async def _end(process: Process) -> None:
    """End all processes of the group, gracefully unless the command has ended."""
    if process.returncode is None:
        _signal_group(process, signal.SIGTERM)
        with anyio.move_on_after(STOP_GRACE):
            await process.wait()
    _signal_group(process, signal.SIGKILL)
    await process.wait()
    await process.aclose()


def _signal_group(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
