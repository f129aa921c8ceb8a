"""``python -m dora_daemon.recording``: recorder process of one dataflow on one machine.

See ``dora_config.protocol.recording`` for its input and output.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

from dora_config.protocol.recording import (
    RecordingEnded,
    RecordingReport,
    RecordingRequest,
    RecordingStarted,
)
from dora_daemon.inspection.runner_connection import InspectionError, RunnerDisconnected
from dora_daemon.recording.recorder import Recorder, RecorderConnection
from dora_daemon.recording.writing import Writing

NICENESS = 5
"""Nodes have a higher priority."""


def main() -> int:
    """Return the exit code."""
    # Ctrl-C in the terminal ends the command, and thereby the standard input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    request = RecordingRequest.model_validate_json(_first_line())
    ended = _record(request)
    with suppress(BrokenPipeError):
        _report(ended)
    return 0 if ended.problem is None and not ended.lost else 1


def _record(request: RecordingRequest) -> RecordingEnded:
    try:
        runner = RecorderConnection(request)
    except InspectionError as error:
        return RecordingEnded(problem=str(error))
    except RunnerDisconnected:
        return RecordingEnded(problem="the dataflow has ended")
    try:
        writing = Writing(request, runner.source)
    except OSError as error:
        runner.close()
        return RecordingEnded(problem=f"{error.filename or request.path}: {error.strerror}")
    recorder = Recorder(runner, writing)
    with suppress(BrokenPipeError):
        _report(RecordingStarted(topics=tuple(runner.receivers), path=str(writing.files[0])))
    recorder.run(0)
    return recorder.ended()


def _first_line() -> bytes:
    line = b""
    while not line.endswith(b"\n") and (data := os.read(0, 65_536)):
        line += data
    return line


def _report(report: RecordingReport) -> None:
    line = report.model_dump_json().encode() + b"\n"
    while line:
        line = line[os.write(1, line) :]


if __name__ == "__main__":
    sys.exit(main())
