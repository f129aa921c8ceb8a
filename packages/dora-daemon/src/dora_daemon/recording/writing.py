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
        self._started = time.monotonic()
        self.epoch_ns = time.time_ns() - time.monotonic_ns()
        """Unix time at zero of CLOCK_MONOTONIC. Not updated, so that a step of the clock does not
        change the order of messages.
        """
        self.recorded = Counts()
        self.lost = Counts()
        self.problem: str | None = None
        self.files: list[Path] = []
        self.ended = threading.Event()
        """A limit was reached, or writing failed."""
        self._finished_bytes = 0
        self._file = self._open()
        self._backlog = Backlog(BACKLOG_BYTES, self.lost)
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="writer")
        self._thread.start()

    def add(self, message: RecordedMessage) -> None:
        with self._changed:
            if self._closing or self.ended.is_set():
                if self.problem is not None:
                    self.lost.add(message.topic, 1)
                return
            self._backlog.add(message)
            self._changed.notify()

    def close(self) -> None:
        """Write what was added and close the file."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._write_waiting():
                pass
            self._finish(self._file)
        except OSError as error:
            self.problem = f"{self._file.path}: {error.strerror or error}"
            self._file.abandon()
            for topic, count in self._file.unwritten.items():
                self.recorded.move(topic, count, self.lost)
            with self._changed:
                for message in self._backlog.take():
                    self.lost.add(message.topic, 1)
        finally:
            self.ended.set()

    def _write_waiting(self) -> bool:
        """Write a batch; return whether there may be more."""
        with self._changed:
            self._changed.wait_for(self._has_work, WAKE_SECONDS)
            batch, closing = self._backlog.take(), self._closing
        for number, message in enumerate(batch):
            try:
                self._write(message)
            except OSError:
                for left in batch[number:]:
                    self.lost.add(left.topic, 1)
                raise
            if self._limits.ended(self._finished_bytes + self._file.size, self.age):
                return False
        self._file.flush_if_due()
        return not closing and not self._limits.ended(0, self.age)

    def _has_work(self) -> bool:
        return self._closing or bool(self._backlog)

    @property
    def age(self) -> float:
        """Return the seconds since the first file was created."""
        return time.monotonic() - self._started

    def _write(self, message: RecordedMessage) -> None:
        file = self._file
        if self._limits.file_ended(file.size, time.monotonic() - file.started):
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
