"""``python -m dora_daemon.inspection.inspector``: inspector process of one stream.

Reads queues and writes a chunk for each byte on standard input, see ``side_process``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import dora_config.quick_imports  # noqa: F401
from dora_config.protocol.topics import StreamTopics, TopicChunk, TopicUpdate
from dora_daemon.inspection.intervals import Intervals
from dora_daemon.inspection.queue_reader import Collector, QueueReader
from dora_daemon.inspection.runner_connection import (
    InspectionError,
    InspectorConnection,
    RunnerDisconnected,
)
from dora_daemon.inspection.samples import Pace, Samples
from dora_daemon.inspection.side_process import prepare, write_line
from dora_node_api.transport.consumer.delivery import Delivery
from dora_node_api.transport.shared.errors import BrokenRecord

SAMPLES_EVERY = 0.05
"""Seconds at least between two updates with messages."""
RATES_EVERY = 0.5
"""Seconds at least between two updates with rates."""


class SampleCollector(Collector):
    """Collects messages with their contents."""

    every = SAMPLES_EVERY

    def __init__(self, request: StreamTopics) -> None:
        # imported here: pyarrow takes a third of a second, and `hz` does not need it
        from dora_daemon.inspection.pictures import PictureLimits
        from dora_daemon.inspection.rendering import render

        self._render = render
        self._limit = request.sample_bytes
        self._pictures = (
            PictureLimits(request.picture_bytes, request.whole_picture_bytes)
            if request.picture_bytes
            else None
        )
        self._pace = Pace(request.max_rate)
        self._samples = Samples(request.chunk_bytes)
        self._begun = False

    def add(self, name: str, delivery: Delivery) -> None:
        now = time.monotonic()
        if not self._pace.admits(name, now) or not self._samples.admits(now):
            self._samples.drop(name, 1)
            return
        begun = time.thread_time()
        try:
            text = self._render(name, delivery, self._limit, self._pictures)
            self._samples.add(name, text, delivery.sent_ns)
        except (BrokenRecord, ValueError, TypeError, NotImplementedError) as error:
            self._samples.drop(name, 1)
            self._samples.note(f"{name}: cannot show a message: {error}")
        if self._pictures is not None:
            self._pace.spent(name, time.monotonic(), time.thread_time() - begun)

    def drop(self, name: str, count: int) -> None:
        self._samples.drop(name, count)

    def broken(self, name: str, error: BrokenRecord) -> None:
        self.note(f"{name}: {error}")

    def note(self, sentence: str) -> None:
        self._samples.note(sentence)

    @property
    def pending(self) -> bool:
        """Whether an update is due; the first one reports that the stream has begun."""
        return not self._begun or bool(self._samples)

    def take(self) -> TopicUpdate:
        self._begun = True
        return self._samples.take()


class RateCollector(Collector):
    """Collects only the times of messages."""

    every = RATES_EVERY

    def __init__(self, request: StreamTopics) -> None:
        self._intervals = {name: Intervals(name, request.window) for name in request.topics}
        self._notes: list[str] = []

    def add(self, name: str, delivery: Delivery) -> None:
        self._intervals[name].add(delivery.sequence, delivery.sent_ns)

    def drop(self, name: str, count: int) -> None:
        pass  # already visible in the sequence numbers

    def interrupt(self, name: str) -> None:
        """Note that the node restarted or ended."""
        self._intervals[name].interrupt()

    def broken(self, name: str, error: BrokenRecord) -> None:
        self.note(f"{name}: {error}")

    def note(self, sentence: str) -> None:
        self._notes.append(sentence)

    @property
    def pending(self) -> bool:
        return True

    def take(self) -> TopicUpdate:
        now = time.monotonic_ns()
        notes, self._notes = tuple(self._notes), []
        return TopicUpdate(rates=tuple(i.rate(now) for i in self._intervals.values()), notes=notes)


class Inspector:
    """Reads queues until the runner ends or the requests end."""

    def __init__(
        self,
        runner: InspectorConnection,
        request: StreamTopics,
        write: Callable[[TopicChunk], None],
    ) -> None:
        self._runner = runner
        self._request = request
        self._write = write
        self._collector: SampleCollector | RateCollector = (
            RateCollector(request) if request.rates else SampleCollector(request)
        )
        for problem in runner.problems:
            self._collector.note(problem)
        self._requested = 1
        """Chunks that may be sent: the first one, and one for each request."""

    def run(self, requests: int) -> None:
        """Run until the runner or the descriptor ``requests`` ends."""
        reader = QueueReader(self._runner, requests, self._collector)
        try:
            self._follow(reader, requests)
        except RunnerDisconnected:
            self._finish(reader)

    def _follow(self, reader: QueueReader, requests: int) -> None:
        due = 0.0
        while True:
            wait = None
            if self._requested and self._collector.pending:
                wait = max(0.0, due - time.monotonic()) * 1000 + 1
            if reader.turn(wait) and not self._read_requests(requests):
                return
            now = time.monotonic()
            if self._requested and self._collector.pending and now >= due:
                due = now + self._collector.every
                self._send()

    def _finish(self, reader: QueueReader) -> None:
        """Write the messages that were sent before the runner ended, if a chunk was requested."""
        with suppress(RunnerDisconnected):
            for name in self._runner.receivers:
                reader.read(name)
        if self._requested and self._collector.pending:
            self._send()

    def _read_requests(self, requests: int) -> bool:
        received = os.read(requests, 64)
        self._requested += len(received)
        return bool(received)

    def _send(self) -> None:
        self._requested -= 1
        self._write(TopicChunk(stream=self._request.stream, update=self._collector.take()))


def main() -> None:
    socket, request = prepare(StreamTopics)
    with suppress(BrokenPipeError):  # the daemon has ended
        problem = _inspect(socket, request)
        write_line(TopicChunk(stream=request.stream, done=True, problem=problem))


def _inspect(socket: Path, request: StreamTopics) -> str | None:
    """Return the error, None when the runner or the stream has ended."""
    try:
        runner = InspectorConnection(socket, request.dataflow_id, request.topics)
        Inspector(runner, request, write_line).run(0)
    except InspectionError as error:
        return str(error)
    except RunnerDisconnected:
        pass
    return None


if __name__ == "__main__":
    main()
