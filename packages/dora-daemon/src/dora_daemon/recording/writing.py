"""Thread of a recorder that compresses messages and writes them to files."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from dora_config.protocol.recordings.recorder import RecordingRequest
from dora_daemon.recording.backlog import Backlog
from dora_daemon.recording.counts import Counts
from dora_daemon.recording.limits import Limits
from dora_daemon.recording.mcap_file import McapFile, clock_now, file_facts
from dora_daemon.recording.message import RecordedMessage
from dora_node_api.protocol.messages import RecordingSource

BACKLOG_BYTES = 128 << 20
"""Messages in memory while the disk is slow."""
WAKE_SECONDS = 0.25


class Writing:
    """Files of one recording. `add` never waits for the disk."""

    def __init__(self, request: RecordingRequest, source: RecordingSource) -> None:
        """Create the first file. Raises OSError."""
        self._request = request
        self._source = source
        self._limits = Limits.of(request)
        self.epoch_ns = time.time_ns() - time.monotonic_ns()
        """Unix time at zero of CLOCK_MONOTONIC. Not updated, so that a step of the clock does not
        change the order of messages.
        """
        self.recorded = Counts()
        self.lost = Counts()
        self.problem: str | None = None
        """Why writing has failed; all further messages are lost."""
        self.files: list[Path] = []
        self.limit_reached = threading.Event()
        """All further messages are ignored."""
        self._first_ns: int | None = None
        """Log time of the first message."""
        self._finished_bytes = 0
        self._file = self._open()
        self._backlog = Backlog(BACKLOG_BYTES, self.lost)
        self._changed = threading.Condition()
        """Guards the backlog and the counts."""
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="writer")
        self._thread.start()

    def add(self, message: RecordedMessage) -> None:
        with self._changed:
            if self._first_ns is None:
                self._first_ns = message.log_time
            if self._limits.ended(0, (message.log_time - self._first_ns) / 1e9):
                self.limit_reached.set()
            elif self.problem is not None:
                self.lost.add(message.topic, 1)
            else:
                self._backlog.add(message)
                self._changed.notify()

    def drop(self, topic: str, count: int) -> None:
        """Count messages that could not be read."""
        with self._changed:
            if not self.limit_reached.is_set():
                self.lost.add(topic, count)

    def close(self) -> None:
        """Write what was added and close the file."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    @property
    def age(self) -> float:
        """Return the seconds since the first message."""
        if self._first_ns is None:
            return 0.0
        return (time.monotonic_ns() + self.epoch_ns - self._first_ns) / 1e9

    def _run(self) -> None:
        try:
            while self._write_waiting():
                pass
            self._finish(self._file)
        except OSError as error:
            with self._changed:
                self.problem = f"{self._file.path}: {error.strerror or error}"
                self._file.abandon()
                for topic, count in self._file.unwritten.items():
                    self.recorded.move(topic, count, self.lost)
                for message in self._backlog.take():
                    self.lost.add(message.topic, 1)

    def _write_waiting(self) -> bool:
        """Write a batch; return whether there may be more."""
        with self._changed:
            self._changed.wait_for(self._has_work, WAKE_SECONDS)
            batch, closing = self._backlog.take(), self._closing
        for number, message in enumerate(batch):
            if self._limits.ended(self._finished_bytes + self._file.size, 0):
                self.limit_reached.set()
                break
            try:
                self._write(message)
            except OSError:
                with self._changed:
                    for left in batch[number:]:
                        self.lost.add(left.topic, 1)
                raise
        self._file.flush_if_due()
        if self._limits.ended(self._finished_bytes + self._file.size, self.age):
            self.limit_reached.set()
        return not closing

    def _has_work(self) -> bool:
        return self._closing or bool(self._backlog)

    def _write(self, message: RecordedMessage) -> None:
        file = self._file
        if self._limits.file_ended(file.size, file.age):
            self._finish(file)
            self._finished_bytes += file.size
            self._file = self._open()
        self._file.add(message)
        self.recorded.add(message.topic, 1)

    def _open(self) -> McapFile:
        path = self._limits.file_name(Path(self._request.path), len(self.files))
        request, source = self._request, self._source
        facts = file_facts(source, request.dataflow_id, self.epoch_ns)
        if request.working_dir is not None:
            facts["working_dir"] = request.working_dir
        file = McapFile(path, request.dataflow or source.descriptor, facts)
        file.add_clock(clock_now())
        self.files.append(path)
        return file

    def _finish(self, file: McapFile) -> None:
        file.add_clock(clock_now())
        file.finish(self.lost.by_topic)
