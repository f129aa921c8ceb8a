"""Starts the coordinator and the default daemon as background processes."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dora_cli import output
from dora_cli.coordinator.errors import CoordinatorBusy
from dora_config.access import private_dir, state_dir
from dora_config.errors import DoraError
from dora_coordinator.telemetry.export_settings import export_problem

POLL_INTERVAL = 0.02
"""Seconds between two checks of the condition."""
BUSY_INTERVAL = 0.5
"""Seconds between two requests to a busy coordinator."""


class BackgroundNotStarted(DoraError):
    """A background process ended, or was not ready in time."""


@dataclass(frozen=True, slots=True)
class BackgroundProcess:
    """A process in its own session, with its output in `log`."""

    what: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait_until(self, ready: Callable[[], bool], *, within: float) -> None:
        """Wait until ``ready()``; raises BackgroundNotStarted with the end of the log.

        The process is killed on failure, also when ``ready`` raises or on Ctrl-C. If the
        coordinator is still busy at the end, the process keeps running and CoordinatorBusy is
        raised.
        """
        deadline = time.monotonic() + within
        busy: CoordinatorBusy | None = None
        try:
            while True:
                try:
                    if ready():
                        return
                    busy = None
                except CoordinatorBusy as error:
                    busy = error
                code = self.process.poll()
                if code is not None:
                    raise BackgroundNotStarted(
                        f"the {self.what} ended with code {code}:\n{self._tail()}"
                    )
                if time.monotonic() > deadline:
                    break
                time.sleep(POLL_INTERVAL if busy is None else BUSY_INTERVAL)
            if busy is None:
                raise BackgroundNotStarted(
                    f"the {self.what} was not ready within {within:g} s:\n{self._tail()}"
                )
        except BaseException:
            self.end()
            raise
        raise CoordinatorBusy(f"the {self.what} was started; {busy}") from busy

    def end(self) -> None:
        """Kill the process and wait until it has ended."""
        self.process.kill()
        self.process.wait()

    def _tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-20:]
        return "\n".join(f"  {line}" for line in lines) + f"\n  (log: {self.log})"


def start(
    what: str,
    argv: Sequence[str],
    *,
    directory: str = "",
    stdin: int = subprocess.DEVNULL,
    environ: Mapping[str, str] = os.environ,
) -> BackgroundProcess:
    """Start a command detached from this terminal.

    ``directory``: working directory of the process and base of relative paths in ``environ``;
    empty: the current one.
    """
    folder = private_dir(private_dir(Path(directory) / state_dir(environ)) / "log")
    log = folder / f"{what}.log"
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        process = subprocess.Popen(
            argv,
            cwd=directory or None,
            env=environ,
            stdin=stdin,
            stdout=handle,
            stderr=handle,
            start_new_session=True,
        )
    finally:
        os.close(handle)
    return BackgroundProcess(what, process, log)


def warn_unless_exported() -> None:
    """Repeat a warning of a coordinator that was started here: its log is in a file."""
    if (problem := export_problem()) is not None:
        output.warn(problem)
