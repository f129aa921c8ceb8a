"""``python -m dora_recordings.recorder``: recorder process of one dataflow on one machine.

Reads the queues of the recorded outputs and passes copies to the writing thread. See
``side_process``, and ``dora_config.protocol.recordings`` for its messages.
"""

from __future__ import annotations

import fnmatch
import os
import select
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import dora_config.quick_imports  # noqa: F401
from dora_config.protocol.recorders import (
    RecorderEnd,
    RecorderStatus,
    RecordingRequest,
)
from dora_daemon.inspection.queue_reader import Collector, QueueReader
from dora_daemon.inspection.runner_connection import (
    InspectionError,
    InspectorConnection,
    RunnerDisconnected,
)
from dora_daemon.inspection.side_process import prepare, write_line
from dora_node_api.data.metadata import split_notes
from dora_node_api.protocol.messages import RECORDER, RecordingSource
from dora_node_api.transport.consumer.delivery import Delivery
from dora_node_api.transport.shared.errors import BrokenRecord
from dora_recordings.arrow_messages import MessageEncoder
from dora_recordings.status_file import StatusFile, identified
from dora_recordings.writing import Writing

CHECK_MS = 100
"""Interval at which limits and problems of the writing thread are noticed."""
REPORT_SECONDS = 1.0
"""Seconds between two reports of the recorder."""
SOCKET_POLL = 0.05
"""Seconds between two checks whether a runner that starts has its socket."""


class RecorderConnection(InspectorConnection):
    """Connection to a runner with a queue for each recorded output."""

    def __init__(self, socket: Path, request: RecordingRequest) -> None:
        """Connect to the runner. Raises InspectionError and RunnerDisconnected."""
        super().__init__(socket, request.dataflow_id, (), name=RECORDER)
        source = self._receive().message
        if not isinstance(source, RecordingSource):
            raise InspectionError(f"the runner answered with {type(source).__name__}")
        self.source = source
        topics = chosen(source.outputs, request.patterns)
        if not topics and not request.none_is_fine:
            patterns = ", ".join(request.patterns) or "all"
            known = ", ".join(source.outputs) or "none"
            raise InspectionError(
                f"no output on this machine matches {patterns}; its outputs: {known}"
            )
        for topic in topics:
            self.open_queue(topic)
        if self.problems:
            raise InspectionError("; ".join(self.problems))


def chosen(outputs: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """Return the outputs that match one of the patterns, all without patterns."""
    wanted = list(patterns)
    return [
        output
        for output in outputs
        if not wanted or any(fnmatch.fnmatchcase(output, pattern) for pattern in wanted)
    ]


class Recorder(Collector):
    """Records until the runner or the requests end, or until a limit is reached."""

    def __init__(
        self, runner: RecorderConnection, writing: Writing, status: StatusFile | None
    ) -> None:
        self._runner = runner
        self._writing = writing
        self._status = status
        self._encoder = MessageEncoder()
        self._end: RecorderEnd | None = None
        self._until_ns: int | None = None
        """End of the recording by CLOCK_MONOTONIC; later messages are ignored."""
        self._drained: set[str] = set()
        """Outputs of which such a message was read."""
        if not runner.receivers:  # a machine of a cluster may have none of the chosen outputs
            writing.begin()

    def run(self, requests: int, *, count_on: bool) -> RecorderStatus:
        """Run until the descriptor ``requests`` ends, then read what is queued.

        Returns the last report. ``count_on``: when writing fails, count the messages until then.
        """
        reader = QueueReader(self._runner, requests, self)
        try:
            self._follow(reader, requests, count_on=count_on)
            if not self._runner.stopping:
                self._until_ns = time.monotonic_ns()
        except RunnerDisconnected:
            stopping = self._runner.stopping
            self._end = RecorderEnd.DATAFLOW if stopping else RecorderEnd.RUNNER
        finally:
            with suppress(RunnerDisconnected):
                self._drain(reader)
            self._writing.close()
            self._runner.close()
            if self._writing.problem is not None:
                self._end = RecorderEnd.FAILED
            last = self.report()
        return last

    def _follow(self, reader: QueueReader, requests: int, *, count_on: bool) -> None:
        due = 0.0
        warned = False
        while not self._runner.stopping and not self._writing.limit_reached.is_set():
            if self._writing.problem is not None and not warned:
                if not count_on:
                    return
                warned = True
                sys.stderr.write(f"recording failed: {self._writing.problem}\n")
            if reader.turn(CHECK_MS) and not os.read(requests, 4096):
                self._end = RecorderEnd.STOPPED
                return
            now = time.monotonic()
            if now >= due:
                due = now + REPORT_SECONDS
                self.report()
        self._end = RecorderEnd.DATAFLOW if self._runner.stopping else RecorderEnd.LIMIT

    def report(self) -> RecorderStatus:
        """Return the present status, after writing it to the status file."""
        writing = self._writing
        status = identified(
            end=self._end,
            files=tuple(path.name for path in writing.files),
            seconds=writing.age,
            recorded=dict.fromkeys(self._runner.receivers, 0) | writing.recorded,
            lost=dict(writing.lost),  # the writing thread may change it
            problem=writing.problem,
        )
        if self._status is not None:
            self._status.write(status)
        return status

    def _drain(self, reader: QueueReader) -> None:
        """Read the messages that are queued now."""
        for name in self._runner.receivers:
            while reader.read(name) and name not in self._drained:
                pass

    # ------------------------------------------------------------ called by the reader

    def drop(self, name: str, count: int) -> None:
        self._writing.drop(name, count)

    def broken(self, name: str, error: BrokenRecord) -> None:
        self._writing.drop(name, 1)

    def add(self, name: str, delivery: Delivery) -> None:
        if self._until_ns is not None and delivery.sent_ns > self._until_ns:
            self._drained.add(name)
            return
        try:
            array = delivery.value
            metadata, notes = split_notes(delivery.take_apart()[0].metadata)
        except BrokenRecord as error:
            self.broken(name, error)
            return
        times = delivery.sent_ns + self._writing.epoch_ns, delivery.timestamp_ns
        self._writing.add(
            self._encoder.message(name, array, metadata, times, delivery.sequence, notes)
        )


def main() -> int:
    """Return the exit code."""
    socket, request = prepare(RecordingRequest)
    status, stop = None, 0
    if request.status_file is not None:
        stop = _until_sigterm()
        status = StatusFile(Path(request.status_file))
    ended = _record(socket, request, status, stop)
    if status is not None:
        status.write(ended)
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
) -> RecorderStatus:
    if status is not None:
        _wait_for_socket(socket, stop)
    try:
        runner = RecorderConnection(socket, request)
    except InspectionError as error:
        return identified(end=RecorderEnd.FAILED, problem=str(error))
    except RunnerDisconnected:
        return identified(end=RecorderEnd.RUNNER, problem="the dataflow has ended")
    try:
        writing = Writing(request, runner.source)
    except OSError as error:
        runner.close()
        problem = f"{error.filename or request.path}: {error.strerror}"
        return identified(end=RecorderEnd.FAILED, problem=problem)
    recorder = Recorder(runner, writing, status)
    with suppress(BrokenPipeError):
        write_line(recorder.report())
    return recorder.run(stop, count_on=request.count_on)


def _wait_for_socket(socket: Path, stop: int) -> None:
    """Wait until a runner that starts has its socket, until it ends, or until ``stop`` ends."""
    while not socket.exists() and socket.parent.exists():
        if select.select([stop], [], [], SOCKET_POLL)[0]:
            return


if __name__ == "__main__":
    sys.exit(main())
