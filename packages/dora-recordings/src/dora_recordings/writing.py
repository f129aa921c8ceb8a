"""Thread of a recorder that compresses messages and writes them to files."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from pathlib import Path

from dora_config.protocol.recorders import RecordingRequest
from dora_node_api.protocol.messages import RecordingSource
from dora_recordings.arrow_messages import RecordedMessage
from dora_recordings.mcap_file import McapFile, clock_now, file_facts

BACKLOG_BYTES = 128 << 20
"""Messages in memory while the disk is slow."""
WAKE_SECONDS = 0.25
"""Longest wait of the writing thread in seconds."""


class WriteBacklog:
    """Messages between the two threads; drops and counts the oldest when it is full."""

    def __init__(self, max_bytes: int, lost: Counter[str]) -> None:
        self._max_bytes = max_bytes
        self._lost = lost
        self._waiting: deque[RecordedMessage] = deque()
        self._bytes = 0

    def add(self, message: RecordedMessage) -> None:
        self._waiting.append(message)
        self._bytes += len(message.data)
        while self._bytes > self._max_bytes and len(self._waiting) > 1:
            oldest = self._waiting.popleft()
            self._bytes -= len(oldest.data)
            self._lost[oldest.topic] += 1

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def take(self) -> list[RecordedMessage]:
        """Return and remove all messages, by the time they were sent."""
        taken = sorted(self._waiting, key=lambda one: one.log_time)
        self._waiting.clear()
        self._bytes = 0
        return taken


class Writing:
    """Files of one recording. `add` never waits for the disk."""

    def __init__(self, request: RecordingRequest, source: RecordingSource) -> None:
        """Create the first file. Raises OSError."""
        self._request = request
        self._source = source
        self._limits = request.limits
        self.epoch_ns = time.time_ns() - time.monotonic_ns()
        """Unix time at zero of CLOCK_MONOTONIC. Not updated, so that a step of the clock does not
        change the order of messages.
        """
        self.recorded = Counter[str]()
        self.lost = Counter[str]()
        """Messages, by output."""
        self.problem: str | None = None
        """Why writing has failed; all further messages are lost."""
        self.files: list[Path] = []
        self.limit_reached = threading.Event()
        """All further messages are ignored."""
        self._first_ns: int | None = None
        """Log time of the first message, or of `begin`."""
        self._finished_bytes = 0
        self._file = self._open()
        self._backlog = WriteBacklog(BACKLOG_BYTES, self.lost)
        self._changed = threading.Condition()
        """Guards the backlog and the counts."""
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="writer")
        self._thread.start()

    def begin(self) -> None:
        """Count the duration from now, without a message."""
        with self._changed:
            self._first_ns = time.monotonic_ns() + self.epoch_ns

    def add(self, message: RecordedMessage) -> None:
        with self._changed:
            if self._first_ns is None:
                self._first_ns = message.log_time
            if self._limits.ended(0, (message.log_time - self._first_ns) / 1e9):
                self.limit_reached.set()
            elif self.problem is not None:
                self.lost[message.topic] += 1
            else:
                self._backlog.add(message)
                self._changed.notify()

    def drop(self, topic: str, count: int) -> None:
        """Count messages that could not be read."""
        with self._changed:
            if not self.limit_reached.is_set():
                self.lost[topic] += count

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
                    self.recorded[topic] -= count
                    self.lost[topic] += count
                for message in self._backlog.take():
                    self.lost[message.topic] += 1

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
                        self.lost[left.topic] += 1
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
        self.recorded[message.topic] += 1

    def _open(self) -> McapFile:
        request, source = self._request, self._source
        path = Path(request.path)
        if self._limits.splits:
            path = path.with_name(f"{path.stem}_{len(self.files)}{path.suffix}")
        facts = file_facts(source, request.dataflow_id, self.epoch_ns)
        if request.working_dir is not None:
            facts["working_dir"] = request.working_dir
        file = McapFile(path, request.dataflow or source.descriptor, facts)
        file.add_clock(clock_now())
        self.files.append(path)
        return file

    def _finish(self, file: McapFile) -> None:
        file.add_clock(clock_now())
        file.finish(self.lost)
