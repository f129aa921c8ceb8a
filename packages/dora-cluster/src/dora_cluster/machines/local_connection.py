"""Connection to this machine, with the interface of one over SSH."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from dora_cluster.connection import FinishedCommand, Listeners, MachineConnection, shown
from dora_cluster.errors import NOT_ENDED, RemoteTimeout

NAME = "this machine"


class LocalConnection(MachineConnection):
    """Commands run in the user's home, with the Python that runs dora first on PATH."""

    def __init__(self) -> None:
        super().__init__(NAME)

    @property
    def is_root(self) -> bool:
        return os.geteuid() == 0

    def close(self) -> None:
        return

    def _execute(
        self, argv: Sequence[str], pieces: Iterator[bytes], timeout: float, listeners: Listeners
    ) -> FinishedCommand:
        path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
        try:
            done = subprocess.run(
                argv,
                input=b"".join(pieces),
                capture_output=True,
                cwd=Path.home(),
                env={**os.environ, "PATH": path},
                timeout=timeout,
                check=False,
            )
        except FileNotFoundError as error:
            if str(error.filename) == str(Path.home()):
                raise
            return FinishedCommand(127, "", f"{argv[0]}: not found")
        except subprocess.TimeoutExpired:
            raise RemoteTimeout(NAME, f"`{shown(argv)}` {NOT_ENDED}") from None
        for listener, data in zip(listeners, (done.stdout, done.stderr), strict=True):
            if listener is not None:
                listener(data)
        out, err = (data.decode("utf-8", "surrogateescape") for data in (done.stdout, done.stderr))
        return FinishedCommand(done.returncode, out, err)

    def _without_sudo(self, reason: str, remedy: str) -> str:
        return (
            f"root's rights are needed, and {reason}; run `sudo -v` in this terminal and then this "
            "command again, or use `--user`, which needs none"
        )
