"""Inspector: reads the queues of a stream and writes a chunk for each request."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from contextlib import suppress

from dora_config.protocol.topics import StreamTopics, TopicChunk, TopicUpdate
from dora_daemon.inspection.intervals import Intervals
from dora_daemon.inspection.runner_connection import InspectorConnection, RunnerDisconnected
from dora_daemon.inspection.samples import Pace, Samples
from dora_node_api.transport import Receiver
from dora_node_api.transport.consumer.delivery import Delivery
from dora_node_api.transport.shared.errors import BrokenRecord
from dora_node_api.transport.shared.layout import RecordKind

PAUSE = 0.001
"""Seconds between reads of busy queues, which limits the load."""
SAMPLES_EVERY = 0.05
RATES_EVERY = 0.5
MAX_BATCH = 128
"""Messages of one output before the next output is read."""


class SampleCollector:
    """Collects messages with their contents."""

    every = SAMPLES_EVERY

    def __init__(self, request: StreamTopics) -> None:
        # pyarrow takes a third of a second to import: `hz` does without.
        from dora_daemon.inspection.rendering import render

        self._render = render
        self._limit = request.sample_bytes
        self._picture_limit = request.picture_bytes
        self._pace = Pace(request.max_rate)
        self._samples = Samples(request.chunk_bytes)
        self._begun = False

    def add(self, name: str, delivery: Delivery) -> None:
        now = time.monotonic()
        if not self._pace.admits(name, now) or not self._samples.admits(now):
            self._samples.drop(name, 1)
            return
        try:
            text = self._render(name, delivery, self._limit, self._picture_limit)
            self._samples.add(name, text, delivery.sent_ns)
        except (BrokenRecord, ValueError, TypeError, NotImplementedError) as error:
            self._samples.drop(name, 1)
            self._samples.note(f"{name}: cannot show a message: {error}")

    def drop(self, name: str, count: int) -> None:
        self._samples.drop(name, count)

    def interrupt(self, name: str) -> None:
        pass

    def note(self, sentence: str) -> None:
        self._samples.note(sentence)

    @property
    def pending(self) -> bool:
        """True before the first update, which reports that the stream has begun."""
        return not self._begun or bool(self._samples)

    def take(self) -> TopicUpdate:
        self._begun = True
        return self._samples.take()


class RateCollector:
    """Collects only the times of messages."""

    every = RATES_EVERY

    def __init__(self, request: StreamTopics) -> None:
        self._intervals = {name: Intervals(name, request.window) for name in request.topics}
        self._notes: list[str] = []

    def add(self, name: str, delivery: Delivery) -> None:
        self._intervals[name].add(delivery.sequence, delivery.sent_ns)

    def drop(self, name: str, count: int) -> None:
        pass  # visible in the sequence numbers

    def interrupt(self, name: str) -> None:
        """The node restarted or ended."""
        self._intervals[name].interrupt()

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
    """Reads until the runner or the standard input ends."""

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
        self._sequences: dict[str, int] = {}
        """Number of the last message of each output; the numbers of a queue have no gaps."""
        self._requested = 1
        """Chunks that may be sent: the first one, and one for each request."""

    def run(self, requests: int) -> None:
        """Run until the descriptor ``requests`` ends. Raises RunnerDisconnected."""
        poll = select.poll()
        poll.register(requests, select.POLLIN)
        poll.register(self._runner.fileno(), select.POLLIN)
        names: dict[int, str] = {}
        for name, receiver in self._runner.receivers.items():
            for descriptor in receiver.fds():
                poll.register(descriptor, select.POLLIN)
                names[descriptor] = name
        due = 0.0
        while True:
            wait = None
            if self._requested and self._collector.pending:
                wait = max(0.0, due - time.monotonic()) * 1000 + 1
            ready = [descriptor for descriptor, _ in poll.poll(wait)]
            for name in {names[descriptor] for descriptor in ready if descriptor in names}:
                self._read(name, self._runner.receivers[name])
            if requests in ready and not self._read_requests(requests):
                return
            if self._runner.fileno() in ready:
                self._runner.check()
            now = time.monotonic()
            if self._requested and self._collector.pending and now >= due:
                due = now + self._collector.every
                self._send()
            if any(descriptor in names for descriptor in ready):
                time.sleep(PAUSE)

    def finish(self) -> None:
        """Write what was sent before the runner ended, if a chunk was requested."""
        with suppress(RunnerDisconnected):
            for name, receiver in self._runner.receivers.items():
                self._read(name, receiver)
        if self._requested and self._collector.pending:
            self._send()

    def _read_requests(self, requests: int) -> bool:
        received = os.read(requests, 64)
        self._requested += len(received)
        return bool(received)

    def _send(self) -> None:
        self._requested -= 1
        self._write(TopicChunk(stream=self._request.stream, news=self._collector.take()))

    def _read(self, name: str, receiver: Receiver) -> None:
        receiver.woken()
        for _ in range(MAX_BATCH):
            try:
                delivery = receiver.receive()
            except BrokenRecord as error:
                self._collector.note(f"{name}: {error}")
                continue
            if delivery is None:
                return
            missed = delivery.sequence - self._sequences.get(name, delivery.sequence - 1) - 1
            self._sequences[name] = delivery.sequence
            if missed:
                self._collector.drop(name, missed)
            if delivery.kind is RecordKind.DATA:
                self._collector.add(name, delivery)
            else:
                self._collector.interrupt(name)
