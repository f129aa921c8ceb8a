"""Reads the queues of a watch and writes chunks, one for each word that asks for more."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from contextlib import suppress

from dora_config.protocol.topics import StreamTopics, TopicChunk, TopicUpdate
from dora_daemon.inspection.intervals import Intervals
from dora_daemon.inspection.runner_side import RunnerGone, RunnerSide
from dora_daemon.inspection.samples import Samples
from dora_node_api.transport import Receiver
from dora_node_api.transport.consumer.delivery import Delivery
from dora_node_api.transport.shared.errors import BrokenRecord
from dora_node_api.transport.shared.layout import RecordKind

PAUSE = 0.001
"""Seconds between two looks at queues that are busy: a flood costs no more than its part."""
SAMPLES_EVERY = 0.05
RATES_EVERY = 0.5
AT_ONCE = 128
"""Messages of one output before the others have their turn."""


class Sequences:
    """Counts what was dropped before it was read: the numbers of a queue have no gaps."""

    def __init__(self) -> None:
        self._last: int | None = None

    def missed(self, number: int) -> int:
        last, self._last = self._last, number
        return 0 if last is None else number - last - 1


class SampleWatch:
    """Messages with their contents."""

    every = SAMPLES_EVERY

    def __init__(self, request: StreamTopics) -> None:
        # pyarrow takes a third of a second to import: `hz` does without.
        from dora_daemon.inspection.rendering import render

        self._render = render
        self._limit = request.sample_bytes
        self._samples = Samples(request.chunk_bytes)
        self._begun = False

    def saw(self, name: str, delivery: Delivery) -> None:
        if not self._samples.wants(time.monotonic()):
            self._samples.drop(name, 1)
            return
        try:
            text = self._render(name, delivery, self._limit)
            self._samples.add(name, text, delivery.sent_ns)
        except (BrokenRecord, ValueError, TypeError, NotImplementedError) as error:
            self._samples.drop(name, 1)
            self._samples.note(f"{name}: a message cannot be shown: {error}")

    def missed(self, name: str, count: int) -> None:
        self._samples.drop(name, count)

    def news_of(self, name: str, kind: RecordKind) -> None:
        """Nothing was sent: a node was started again, or has ended."""

    def note(self, sentence: str) -> None:
        self._samples.note(sentence)

    @property
    def pending(self) -> bool:
        """The first news, with or without a message, say that the watch has begun."""
        return not self._begun or bool(self._samples)

    def take(self) -> TopicUpdate:
        self._begun = True
        return self._samples.take()


class RateWatch:
    """Only when messages came."""

    every = RATES_EVERY

    def __init__(self, request: StreamTopics) -> None:
        self._intervals = {name: Intervals(name, request.window) for name in request.topics}
        self._notes: list[str] = []

    def saw(self, name: str, delivery: Delivery) -> None:
        self._intervals[name].saw(delivery.sequence, delivery.sent_ns)

    def missed(self, name: str, count: int) -> None:
        """The numbers tell it."""

    def news_of(self, name: str, kind: RecordKind) -> None:
        self._intervals[name].paused()

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
    """From the runner to whoever listens; ends when either of them goes."""

    def __init__(
        self, runner: RunnerSide, request: StreamTopics, write: Callable[[TopicChunk], None]
    ) -> None:
        self._runner = runner
        self._request = request
        self._write = write
        self._watch: SampleWatch | RateWatch = (
            RateWatch(request) if request.rates else SampleWatch(request)
        )
        for problem in runner.problems:
            self._watch.note(problem)
        self._sequences = {name: Sequences() for name in runner.receivers}
        self._wanted = 1
        """Chunks that may be sent: the first one, and one for each word that asks for more."""

    def run(self, words: int) -> None:
        """Until ``words`` (a descriptor, a byte asks for more) ends; raises RunnerGone."""
        poll = select.poll()
        poll.register(words, select.POLLIN)
        poll.register(self._runner.fileno(), select.POLLIN)
        names: dict[int, str] = {}
        for name, receiver in self._runner.receivers.items():
            for descriptor in receiver.fds():
                poll.register(descriptor, select.POLLIN)
                names[descriptor] = name
        due = 0.0
        while True:
            wait = None
            if self._wanted and self._watch.pending:
                wait = max(0.0, due - time.monotonic()) * 1000 + 1
            ready = [descriptor for descriptor, _ in poll.poll(wait)]
            for name in {names[descriptor] for descriptor in ready if descriptor in names}:
                self._read(name, self._runner.receivers[name])
            if words in ready and not self._listen(words):
                return
            if self._runner.fileno() in ready:
                self._runner.look()
            now = time.monotonic()
            if self._wanted and self._watch.pending and now >= due:
                due = now + self._watch.every
                self._send()
            if any(descriptor in names for descriptor in ready):
                time.sleep(PAUSE)

    def finish(self) -> None:
        """What was seen before the runner ended, if it is wanted."""
        with suppress(RunnerGone):
            for name, receiver in self._runner.receivers.items():
                self._read(name, receiver)
        if self._wanted and self._watch.pending:
            self._send()

    def _listen(self, words: int) -> bool:
        asked = os.read(words, 64)
        self._wanted += len(asked)
        return bool(asked)

    def _send(self) -> None:
        self._wanted -= 1
        self._write(TopicChunk(stream=self._request.stream, news=self._watch.take()))

    def _read(self, name: str, receiver: Receiver) -> None:
        receiver.woken()
        for _ in range(AT_ONCE):
            try:
                delivery = receiver.receive()
            except BrokenRecord as error:
                self._watch.note(f"{name}: {error}")
                continue
            if delivery is None:
                return
            missed = self._sequences[name].missed(delivery.sequence)
            if missed:
                self._watch.missed(name, missed)
            if delivery.kind is RecordKind.DATA:
                self._watch.saw(name, delivery)
            else:
                self._watch.news_of(name, delivery.kind)
