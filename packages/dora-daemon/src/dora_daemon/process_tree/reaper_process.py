"""Runs the reaper beside the owner of a runtime directory and replaces it when it is killed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable

from dora_daemon.process_tree import reaper
from dora_daemon.process_tree.runtime_dir import RuntimeDir

MIN_UPTIME = 1.0
"""Seconds. A reaper that ends sooner is not replaced: the next one would end as well."""


class ReaperProcess:
    """The reaper of a runtime directory, in the process of the owner.

    Its end as a context manager releases the directory (``keep``: but not a result), then ends the
    reaper.
    """

    def __init__(self, directory: RuntimeDir, *, keep: bool = False) -> None:
        self._directory = directory
        self._keep = keep
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._warn: Callable[[str], None] = lambda text: None

    def __enter__(self) -> ReaperProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self._directory.release(keep=self._keep)
        self._dismiss()

    def start(self) -> None:
        """Start it; call this before any process that it has to kill is started."""
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", reaper.__file__, str(self._directory.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={},
            start_new_session=True,
        )

    def watch(self, loop: asyncio.AbstractEventLoop, warn: Callable[[str], None]) -> None:
        """Replace the process when it ends, with a warning."""
        self._loop, self._warn = loop, warn
        # the write end of a pipe becomes readable, with an error, when its reader has ended
        loop.add_reader(self._pipe(), self._ended)

    def unwatch(self) -> None:
        """Stop watching; call this inside the loop, before the loop ends."""
        if self._loop is not None and self._process is not None:
            self._loop.remove_reader(self._pipe())
        self._loop = None

    def _dismiss(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()
            self._process = None

    def _pipe(self) -> int:
        assert self._process is not None
        assert self._process.stdin is not None
        return self._process.stdin.fileno()

    def _ended(self) -> None:
        loop, warn = self._loop, self._warn
        assert loop is not None
        self.unwatch()
        self._dismiss()
        if time.monotonic() - self._started < MIN_UPTIME:
            warn(
                "the reaper process, which cleans up if this process is killed, ended at once and"
                " is not restarted; the next `dora` command will clean up instead"
            )
            return
        warn("restarting the reaper process, which cleans up if this process is killed: it ended")
        self.start()
        self.watch(loop, warn)
