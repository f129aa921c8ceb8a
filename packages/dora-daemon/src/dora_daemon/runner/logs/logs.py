"""Passes a node's stdout and stderr to its log file, to samples and to `dora run`.

Each turn of the event loop passes on a limited number of lines, so that a flood of them fills the
node's pipe and does not delay other nodes or requests.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal, Protocol

from dora_config.dataflow.resolved import ResolvedNode
from dora_config.dataflow.sources import LogLevel
from dora_config.protocol.runner_events import LogLine, passes
from dora_daemon.runner.logs.log_entries import OutputSplitter, entry_from_line, file_line
from dora_daemon.runner.logs.log_files import LogFile

TAIL_LINES = 500
"""Last lines of stderr kept for the report of a failure."""
TAIL_CHARACTERS = 2000
"""Characters to which each line is cut."""
_CHUNK = 32768
"""Bytes that are read from a pipe at once."""
_MAX_IN_A_PIPE = 1 << 20
"""Bytes; the largest pipe that Linux gives to users by default."""
_LINES_A_TURN = 200
"""Lines that one turn of the event loop passes on."""

Stream = Literal["stdout", "stderr"]


class OutputGate:
    """Gate for the output of nodes, which stays in their pipes while the gate is closed."""

    def __init__(self) -> None:
        self.is_open = True
        self._waiting: list[Callable[[], None]] = []

    def shut(self) -> None:
        self.is_open = False

    def open(self) -> None:
        """Resume every waiting reader."""
        self.is_open = True
        waiting, self._waiting = self._waiting, []
        for proceed in waiting:
            proceed()

    def when_open(self, proceed: Callable[[], None]) -> None:
        """Call ``proceed`` once when the gate opens."""
        self._waiting.append(proceed)


def now_text() -> str:
    """Return the current time for a log entry: RFC 3339, milliseconds, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class LogDestinations(Protocol):
    """Destinations of log entries other than the nodes' files."""

    gate: OutputGate | None

    def show(self, entry: LogLine) -> bool: ...
    def send(self, output: str, text: str) -> None: ...
    def to_subscribers(self, entry: LogLine) -> None: ...
    def message_text(self, entry: LogLine) -> str: ...
    def warn(self, message: str) -> None: ...


class NodeLog:
    """Destinations of the lines of one node, over all its processes."""

    def __init__(self, spec: ResolvedNode, file: LogFile, router: LogDestinations) -> None:
        self._spec = spec
        self._file = file
        self._router = router
        self._was_shown = False
        """Whether a line of the present call of `take` was passed to `dora run`."""
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        """Last lines on stderr of the current process."""

    def take(self, stream: Stream, lines: list[str]) -> OutputGate | None:
        """Log printed lines; return the gate that further ones must wait for."""
        ts = now_text()
        kept = []
        self._was_shown = False
        for text in lines:
            if stream == "stderr":
                self.tail.append(text[:TAIL_CHARACTERS])
            if self._spec.send_stdout_as is not None:
                # both streams are sent, as in dora-rs
                self._send(self._spec.send_stdout_as, text + "\n")
            entry = entry_from_line(text, node=self._spec.id, stream=stream, ts=ts)
            if self._pass_on(entry):
                kept.append(file_line(entry))
        self._write(kept)
        gate = self._router.gate
        return gate if self._was_shown and gate is not None and not gate.is_open else None

    def log(self, entry: LogLine) -> None:
        """Log an entry that the node did not print itself."""
        if self._pass_on(entry):
            self._write([file_line(entry)])

    def note(self, level: LogLevel, message: str) -> None:
        """Write a line about the node's process into the file, regardless of its level."""
        entry = LogLine(
            ts=now_text(), level=level, node=self._spec.id, message=message, target="dora.runner"
        )
        self._write([file_line(entry)])

    def _send(self, output: str, text: str) -> None:
        self._router.send(f"{self._spec.id}/{output}", text)

    def _pass_on(self, entry: LogLine) -> bool:
        if not passes(entry.level, self._spec.min_log_level):
            return False
        self._router.to_subscribers(entry)
        if self._spec.send_logs_as is not None and entry.level != "stdout":
            self._send(self._spec.send_logs_as, self._router.message_text(entry))
        if self._router.show(entry):
            self._was_shown = True
        return True

    def _write(self, lines: list[str]) -> None:
        if lines and (problem := self._file.write(lines)) is not None:
            self._router.warn(problem)

    def create_file(self) -> None:
        """Create the log file before the node prints anything."""
        if (problem := self._file.create()) is not None:
            self._router.warn(problem)

    def close(self) -> None:
        self._file.close()


class LineHandler(Protocol):
    """Receiver of lines, such as a NodeLog."""

    def take(self, stream: Stream, lines: list[str]) -> OutputGate | None:
        """Process lines; return the gate that further ones must wait for."""


class OutputReader:
    """Reads one stream of a process into its log."""

    def __init__(self, descriptor: int, stream: Stream, log: LineHandler) -> None:
        self._descriptor = descriptor
        self._stream = stream
        self._log = log
        self._splitter = OutputSplitter()
        self._lines: deque[str] = deque()
        self._open = True
        self._paused = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._readable)

    def _readable(self) -> None:
        if self._read() == b"":
            self._stop_reading()
        else:
            self._turn()

    def _read(self) -> bytes | None:
        """Read from the pipe; return None if it is empty now, b"" at its end."""
        try:
            data = os.read(self._descriptor, _CHUNK)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return b""
        self._lines.extend(self._splitter.feed(data))
        return data

    def _turn(self) -> None:
        if not self._open:
            return
        gate = self._pass_on(_LINES_A_TURN)
        if (self._lines or gate is not None) and not self._paused:
            # too many lines for one turn: read again after the other readers
            self._paused = True
            self._loop.remove_reader(self._descriptor)
        if gate is not None:
            gate.when_open(self._turn)
        elif self._lines:
            self._loop.call_soon(self._turn)
        elif self._paused:
            self._paused = False
            self._loop.add_reader(self._descriptor, self._readable)

    def _pass_on(self, most: int) -> OutputGate | None:
        count = min(most, len(self._lines))
        if not count:
            return None
        return self._log.take(self._stream, [self._lines.popleft() for _ in range(count)])

    def _stop_reading(self) -> None:
        if self._open:
            self._open = False
            self._loop.remove_reader(self._descriptor)

    def finish(self) -> None:
        """Read the rest of the pipe after the end of the process.

        A process of another session may keep the pipe open; it is not waited for.
        """
        for _ in range(_MAX_IN_A_PIPE // _CHUNK):
            if not self._read():
                break
        self._stop_reading()
        self._lines.extend(self._splitter.flush())
        self._pass_on(len(self._lines))
