"""A ProxyCommand: a process whose input and output carry the connection."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections import deque
from contextlib import ExitStack

_KEPT_LINES = 8
_END_TIMEOUT = 2.0
_MAX_LINE = 4096


class ProxyCommand:
    """Runs until ``stack`` is closed; ``link`` is the near end of its input and output."""

    def __init__(self, command: str, stack: ExitStack) -> None:
        self.command = command
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self.link, theirs = socket.socketpair()
        stack.callback(self.link.close)
        with theirs:
            self._process = subprocess.Popen(
                ["sh", "-c", f"exec {command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        stack.callback(self._end)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def last_lines(self) -> str:
        """Return its last lines on stderr, indented."""
        self._listener.join(_END_TIMEOUT)  # a process that has failed is about to end
        return "".join(f"\n  {line}" for line in list(self._lines))

    def _listen(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None
        with stderr:
            while line := stderr.readline(_MAX_LINE):
                if text := line.decode(errors="replace").strip():
                    self._lines.append(text)

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join(_END_TIMEOUT)
