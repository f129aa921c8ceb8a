"""Keeps a guardian at a runner's side: starts it, and another one when somebody killed it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from dora_daemon.runner.process import reaper as guardian

SHORT_LIFE = 1.0
"""Seconds. A guardian that ends sooner is not started again: the next one would end as well."""


class Guard:
    """The guardian process of a runtime directory, as its runner sees it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._say: Callable[[str], None] = lambda text: None

    def start(self) -> None:
        """Before any node: whoever kills us, somebody cleans up."""
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", guardian.__file__, str(self.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={},
            start_new_session=True,
        )

    def watch(self, loop: asyncio.AbstractEventLoop, say: Callable[[str], None]) -> None:
        """From now on a guardian that ends is replaced; ``say`` takes the warning."""
        self._loop, self._say = loop, say
        # The writing end of a pipe turns readable, with an error, when nobody is left to read.
        loop.add_reader(self._pipe(), self._ended)

    def unwatch(self) -> None:
        """Call it inside the loop, before the loop ends."""
        if self._loop is not None and self._process is not None:
            self._loop.remove_reader(self._pipe())
        self._loop = None

    def dismiss(self) -> None:
        """After the directory was released: there is nothing left to guard."""
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
        loop, say = self._loop, self._say
        assert loop is not None
        self.unwatch()
        self.dismiss()
        if time.monotonic() - self._started < SHORT_LIFE:
            say(
                "the guardian process, which cleans up if the runner is killed, ended at once and"
                " is not started again; the next `dora` command will clean up instead"
            )
            return
        say(
            "the guardian process, which cleans up if the runner is killed, has ended;"
            " another one is started"
        )
        self.start()
        self.watch(loop, say)
