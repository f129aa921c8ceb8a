"""Self-test of this installation, in a temporary folder.

Starts a coordinator and two daemons, and runs three nodes on them: one pair communicates over
shared memory, one over a link. Leaves nothing behind.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

from dora_config.errors import DoraError
from dora_config.linux import require_linux
from dora_config.spawn_argv import run_module

TIMEOUT: Final = 90.0
"""Seconds for each step; generous for small machines under load."""
EXPECTED: Final = "self-test: 100 messages arrived"
RECEIVERS: Final = 2
"""Receivers in the dataflow of the self-test."""
_FILES: Final = ("dataflow.yml", "sender.py", "receiver.py")
_TIMEOUTS: Final = ("--set", f"link_timeout={TIMEOUT:g}", "--set", f"start_timeout={TIMEOUT:g}")


def run() -> None:
    """Run the self-test; raises DoraError."""
    require_linux()
    # short, because socket paths below it are limited
    with tempfile.TemporaryDirectory(prefix="dt", dir="/tmp") as name:
        folder = Path(name)
        for file in _FILES:
            with as_file(files(__name__) / file) as source:
                (folder / file).write_bytes(source.read_bytes())
        _Test(folder, _environment(folder)).run()


def _environment(folder: Path) -> dict[str, str]:
    """Return an environment without settings of the user and with ``folder`` as home."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DORA_")}
    for name in ("RUNTIME_DIRECTORY", "CREDENTIALS_DIRECTORY", "XDG_RUNTIME_DIR"):
        environ.pop(name, None)
    return environ | {
        "HOME": str(folder),
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_CONFIG_HOME": str(folder / "config"),
    }


class _Test:
    """One run of the self-test."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._environ = dict(environ)

    def run(self) -> None:
        with self._service("coordinator", "--port", "0", "--store", "memory", *_TIMEOUTS) as log:
            port = _wait("the coordinator", log, lambda text: re.search(r"port (\d+)", text))[1]
            self._environ["DORA_COORDINATOR_PORT"] = port
            with self._daemon("one"), self._daemon("two"):
                self._start_dataflow()

    def _start_dataflow(self) -> None:
        """Run `dora start`; raises DoraError unless all messages arrived."""
        try:
            done = subprocess.run(
                [*run_module("dora_config.launcher"), "start", "dataflow.yml", "--attach"],
                cwd=self._folder,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired as expired:
            raise DoraError(
                f"a dataflow on two daemons did not end within {TIMEOUT:g} s; it printed:\n"
                + _indented((expired.stdout or b"").decode(errors="replace"))
            ) from None
        printed = done.stdout.decode(errors="replace")
        if done.returncode != 0 or printed.count(EXPECTED) != RECEIVERS:
            raise DoraError(
                f"a dataflow on two daemons ended with code {done.returncode}; it printed:\n"
                + _indented(printed)
            )

    @contextmanager
    def _daemon(self, machine: str) -> Iterator[None]:
        with self._service("daemon", "--machine-id", machine) as log:
            _wait(f"daemon {machine}", log, lambda text: re.search("connected to the", text))
            yield

    @contextmanager
    def _service(self, *words: str) -> Iterator[Path]:
        """Run a process of dora; yields the file with its output."""
        log = self._folder / f"{'-'.join(words[:3])}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*run_module("dora_config.launcher"), *words],
                cwd=self._folder,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        try:
            yield log
        finally:
            process.terminate()
            try:
                process.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(what: str, log: Path, found: Callable[[str], re.Match[str] | None]) -> re.Match[str]:
    deadline = time.monotonic() + TIMEOUT
    while (match := found(log.read_text(errors="replace"))) is None:
        if time.monotonic() > deadline:
            raise DoraError(
                f"{what} was not ready within {TIMEOUT:g} s; it printed:\n"
                + _indented(log.read_text(errors="replace"))
            )
        time.sleep(0.05)
    return match


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines()[-15:])
