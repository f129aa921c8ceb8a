"""Recorder process of a command, and the report of a recording."""

from __future__ import annotations

import signal
import subprocess
from contextlib import suppress
from typing import IO

from dora_cli import output
from dora_cli.errors import CommandFailed
from dora_cli.recordings.errors import RecordingError
from dora_cli.recordings.report import write_report
from dora_config.protocol.recordings.recorder import (
    REPORTS,
    RecordingEnded,
    RecordingRequest,
    RecordingStarted,
)
from dora_config.spawn_argv import run_module


class RecorderProcess:
    """Runs beside the nodes and finishes the file when this process ends, however it ends."""

    def __init__(self, request: RecordingRequest) -> None:
        """Start recording. Raises RecordingError."""
        self._process = subprocess.Popen(
            run_module("dora_daemon.recording"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        with suppress(BrokenPipeError):
            self._stdin.write(request.model_dump_json().encode() + b"\n")
            self._stdin.flush()
        started = self._next_report()
        if not isinstance(started, RecordingStarted):
            self._end()
            problem = started.problem if started is not None else None
            raise RecordingError(f"cannot record: {problem or self._exit()}")
        self._started = started
        count = output.counted(len(started.topics), "output")
        output.remark(f"recording {count} to {started.path}")

    @property
    def _stdin(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    def _next_report(self) -> RecordingStarted | RecordingEnded | None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return REPORTS.validate_json(line) if line.endswith(b"\n") else None

    def wait(self) -> RecordingEnded:
        """Return the report when the recording has ended; Ctrl-C ends it."""
        try:
            report = self._next_report()
        except KeyboardInterrupt:
            return self.finish()
        return self._ended(report)

    def finish(self) -> RecordingEnded:
        """Record what was sent until now and return the report."""
        with suppress(BrokenPipeError):
            self._stdin.close()
        return self._ended(self._next_report())

    def _ended(self, report: RecordingStarted | RecordingEnded | None) -> RecordingEnded:
        self._end()
        if isinstance(report, RecordingEnded):
            return report
        problem = f"{self._exit()}; the file is readable up to its last second"
        return RecordingEnded(files=(self._started.path,), problem=problem)

    def _end(self) -> None:
        with suppress(BrokenPipeError):
            self._stdin.close()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _exit(self) -> str:
        code = self._process.returncode
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        return f"the recorder ended unexpectedly ({how})"


def report_ended(ended: RecordingEnded) -> None:
    """Print what was recorded; raises CommandFailed unless all of it was."""
    early = ended.problem and f"the recording ended early: {ended.problem}"
    if not write_report(ended.recorded, ended.lost, ended.files, (early,) if early else ()):
        raise CommandFailed
