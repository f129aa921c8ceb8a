"""A ProxyCommand: a process whose input and output are the wire, and what it says beside that."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections import deque
from contextlib import ExitStack

LAST_LINES = 8
_END_TIMEOUT = 2.0
_LONGEST_LINE = 4096


class ProxyCommand:
    """Runs until ``stack`` is left; ``link`` is our end of its input and output."""

    def __init__(self, command: str, stack: ExitStack) -> None:
        self.command = command
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
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

    def last_words(self) -> str:
        """Its last lines on stderr, each on a line of its own and indented; empty for none."""
        self._listener.join(_END_TIMEOUT)  # what has failed is about to end
        return "".join(f"\n  {line}" for line in list(self._lines))

    def _listen(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None
        with stderr:
            while line := stderr.readline(_LONGEST_LINE):
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
