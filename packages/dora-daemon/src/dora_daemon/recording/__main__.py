"""``python -m dora_daemon.recording``: recorder process of one dataflow on one machine.

See ``side_process``, and ``dora_config.protocol.recordings.recorder`` for its messages.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from contextlib import suppress
from pathlib import Path

from dora_config.protocol.recordings.recorder import (
    RecorderEnd,
    RecordingEnded,
    RecordingRequest,
    RecordingStarted,
)
from dora_daemon.inspection.runner_connection import InspectionError, RunnerDisconnected
from dora_daemon.inspection.side_process import prepare, write_line
from dora_daemon.recording.recorder import Recorder, RecorderConnection
from dora_daemon.recording.status_file import StatusFile, identified
from dora_daemon.recording.writing import Writing

SOCKET_POLL = 0.05
"""Seconds between two checks whether a runner that starts has its socket."""


def main() -> int:
    """Return the exit code."""
    socket, request = prepare(RecordingRequest)
    status, stop = None, 0
    if request.status_file is not None:
        stop = _until_sigterm()
        status = StatusFile(Path(request.status_file))
    ended = _record(socket, request, status, stop)
    with suppress(BrokenPipeError):
        write_line(ended)
    return 0 if ended.problem is None and not ended.lost else 1


def _until_sigterm() -> int:
    """Return a descriptor that ends with SIGTERM."""
    reader, writer = os.pipe()
    writers = [writer]

    def end(*_: object) -> None:
        while writers:  # a second signal may arrive while this function runs
            os.close(writers.pop())

    signal.signal(signal.SIGTERM, end)
    return reader


def _record(
    socket: Path, request: RecordingRequest, status: StatusFile | None, stop: int
) -> RecordingEnded:
    if status is not None:
        _wait_for_socket(socket, stop)
    try:
        runner = RecorderConnection(socket, request)
    except InspectionError as error:
        return _failed(status, RecorderEnd.FAILED, str(error))
    except RunnerDisconnected:
        return _failed(status, RecorderEnd.RUNNER, "the dataflow has ended")
    try:
        writing = Writing(request, runner.source)
    except OSError as error:
        runner.close()
        problem = f"{error.filename or request.path}: {error.strerror}"
        return _failed(status, RecorderEnd.FAILED, problem)
    recorder = Recorder(runner, writing, status)
    with suppress(BrokenPipeError):
        write_line(RecordingStarted(topics=tuple(runner.receivers), path=str(writing.files[0])))
    recorder.run(stop, count_on=request.count_on)
    return recorder.ended()


def _wait_for_socket(socket: Path, stop: int) -> None:
    """Wait until a runner that starts has its socket, until it ends, or until ``stop`` ends."""
    while not socket.exists() and socket.parent.exists():
        if select.select([stop], [], [], SOCKET_POLL)[0]:
            return


def _failed(status: StatusFile | None, end: RecorderEnd, problem: str) -> RecordingEnded:
    if status is not None:
        status.write(identified(end=end, problem=problem))
    return RecordingEnded(problem=problem)


if __name__ == "__main__":
    sys.exit(main())
