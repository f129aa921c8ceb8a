"""Runs the ``dora`` command in a process and keeps its output."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from support.fork_server import DORA as DORA, Process, start
from support.waiting import PATIENCE, wait_until


@dataclass(frozen=True)
class Completed:
    """Exit code (negative: signal) and output of a ``dora`` command."""

    args: tuple[str, ...]
    code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr

    def succeeded(self) -> Completed:
        """Return itself; raise AssertionError with the output unless the exit code is 0."""
        return self.exited(0)

    def exited(self, code: int) -> Completed:
        """Return itself; raise AssertionError with the output unless the exit code is ``code``."""
        if self.code != code:
            raise AssertionError(f"exit code {self.code}, expected {code}\n{self}")
        return self

    def __str__(self) -> str:
        return (
            f"$ dora {' '.join(self.args)}\n[exit code {self.code}]\n"
            f"--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"
        )


@dataclass
class RunningDora:
    """A running ``dora`` command in its own process group."""

    args: tuple[str, ...]
    process: Process
    _out: IO[bytes] = field(repr=False)
    _err: IO[bytes] = field(repr=False)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def stdout(self) -> str:
        return _text_so_far(self._out)

    @property
    def stderr(self) -> str:
        return _text_so_far(self._err)

    def wait_for(self, text: str, *, timeout: float = PATIENCE) -> None:
        """Wait until ``text`` was printed on either stream; fail at once if the command ended."""

        def printed() -> bool:
            ended = self.process.poll() is not None
            if text in self.stdout or text in self.stderr:
                return True
            if ended:
                raise AssertionError(f"ended without printing {text!r}\n{self.result()}")
            return False

        wait_until(
            printed,
            timeout=timeout,
            what=lambda: f"{text!r} from dora {' '.join(self.args)}:\n{self.stdout}{self.stderr}",
        )

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the command without its group (Ctrl-C in a terminal reaches the whole group)."""
        self.process.send_signal(number)

    def interrupt(self) -> None:
        self.send_signal(signal.SIGINT)

    def wait(self, *, timeout: float = PATIENCE) -> Completed:
        """Wait for the end of the command; kill it and fail after ``timeout`` seconds."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"did not end within {timeout:g} s\n{self.result()}") from None
        return self.result()

    def result(self) -> Completed:
        code = self.process.poll()
        return Completed(self.args, 0 if code is None else code, self.stdout, self.stderr)

    def kill(self) -> None:
        """Kill the command's process group and reap the command."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)


def _text_so_far(file: IO[bytes]) -> str:
    return os.pread(file.fileno(), 1 << 26, 0).decode(errors="replace")


@contextmanager
def running_dora(
    *args: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    program: Sequence[str | Path] | None = None,
) -> Iterator[RunningDora]:
    """Start ``dora ARGS``; kill it at the end of the block if it still runs.

    ``env`` is added to the test's environment. ``program``: another ``dora``; the default is a fork
    of a process that has imported its modules. Output goes to unnamed files, since pipes could fill
    up.
    """
    words = tuple(str(arg) for arg in args)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with tempfile.TemporaryFile() as source:
            source.write((stdin or "").encode())
            source.seek(0)
            variables = {**os.environ, **(env or {})}
            streams = (source.fileno(), out.fileno(), err.fileno())
            process: Process
            if program is None:
                process = start(words, streams, cwd=cwd, environ=variables)
            else:
                process = subprocess.Popen(
                    [*map(str, program), *words],
                    cwd=cwd,
                    env=variables,
                    stdin=source,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,
                )
        running = RunningDora(words, process, out, err)
        try:
            yield running
        finally:
            if process.poll() is None:
                running.kill()


def run_dora(
    *args: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    timeout: float = 2 * PATIENCE,
    program: Sequence[str | Path] | None = None,
) -> Completed:
    """Run ``dora ARGS`` to its end; fail with its output after ``timeout`` seconds."""
    with running_dora(*args, cwd=cwd, env=env, stdin=stdin, program=program) as running:
        return running.wait(timeout=timeout)
