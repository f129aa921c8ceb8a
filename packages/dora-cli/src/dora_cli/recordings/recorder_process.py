"""Recorder process of a command, and the report of a recording."""

from __future__ import annotations

import signal
from pathlib import Path

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
from dora_daemon.inspection.process import RECORDER_MODULE, SideProcess


class RecorderProcess:
    """Runs beside the nodes and finishes the file when this process ends, however it ends."""

    def __init__(self, runner: Path, request: RecordingRequest) -> None:
        """Start recording; ``runner``: directory of the runner. Raises RecordingError."""
        self._process = SideProcess(RECORDER_MODULE, runner, request)
        started = self._next_report()
        if not isinstance(started, RecordingStarted):
            problem = started.problem if started is not None else None
            raise RecordingError(f"cannot record: {problem or self._exit()}")
        self._started = started
        count = output.counted(len(started.topics), "output")
        output.remark(f"recording {count} to {started.path}")

    def _next_report(self) -> RecordingStarted | RecordingEnded | None:
        line = self._process.next_line()
        return None if line is None else REPORTS.validate_json(line)

    def wait(self) -> RecordingEnded:
        """Return the report when the recording has ended; Ctrl-C ends it."""
        try:
            report = self._next_report()
        except KeyboardInterrupt:
            return self.finish()
        return self._ended(report)

    def finish(self) -> RecordingEnded:
        """Record what was sent until now and return the report."""
        self._process.finish()
        return self._ended(self._next_report())

    def _ended(self, report: RecordingStarted | RecordingEnded | None) -> RecordingEnded:
        how = self._exit()
        if isinstance(report, RecordingEnded):
            return report
        problem = f"{how}; the file is readable up to its last second"
        return RecordingEnded(files=(self._started.path,), problem=problem)

    def _exit(self) -> str:
        """Wait until the process has ended; return a sentence for an unexpected end."""
        code = self._process.wait()
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        return f"the recorder ended unexpectedly ({how})"


def report_ended(ended: RecordingEnded) -> None:
    """Print what was recorded; raises CommandFailed unless all of it was."""
    early = ended.problem and f"the recording ended early: {ended.problem}"
    if not write_report(ended.recorded, ended.lost, ended.files, (early,) if early else ()):
        raise CommandFailed
