"""Recorder: reads the queues of the recorded outputs and passes copies to the writing thread."""

from __future__ import annotations

import fnmatch
import os
import select
import time
from collections.abc import Iterable
from contextlib import suppress

from dora_config.protocol.recording import RecordingEnded, RecordingRequest
from dora_daemon.inspection.runner_connection import (
    InspectionError,
    InspectorConnection,
    RunnerDisconnected,
)
from dora_daemon.recording.arrow_messages import encode, schema_of
from dora_daemon.recording.backlog import Sent
from dora_daemon.recording.counts import Sequences
from dora_daemon.recording.writing import Writing
from dora_node_api.protocol.messages import RECORDER, RecordingSource
from dora_node_api.transport import Receiver
from dora_node_api.transport.consumer.delivery import Delivery
from dora_node_api.transport.shared.errors import BrokenRecord
from dora_node_api.transport.shared.layout import RecordKind

PAUSE = 0.001
"""Seconds between reads of busy queues, which limits the load."""
MAX_BATCH = 128
"""Messages of one output before the next output is read."""
CHECK_MS = 100
"""Interval at which the end of the writing thread is noticed."""


class RecorderConnection(InspectorConnection):
    """Connection to a runner with a queue for each recorded output."""

    def __init__(self, request: RecordingRequest) -> None:
        """Raises InspectionError and RunnerDisconnected."""
        super().__init__(request.socket, request.dataflow_id, (), name=RECORDER)
        source = self._receive().message
        if not isinstance(source, RecordingSource):
            raise InspectionError(f"the runner answered with {type(source).__name__}")
        self.source = source
        topics = chosen(source.outputs, request.patterns)
        if not topics:
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


class Recorder:
    """Records until the runner or the standard input ends, or until a limit is reached."""

    def __init__(self, runner: RecorderConnection, writing: Writing) -> None:
        self._runner = runner
        self._writing = writing
        self._sequences = Sequences()
        self._schemas: dict[object, tuple[object, bytes, str]] = {}
        self._epoch_ns = time.time_ns() - time.monotonic_ns()
        """Not updated, so that a step of the clock does not change the order of messages."""

    def run(self, requests: int) -> None:
        """Run until the descriptor ``requests`` ends, then read what is queued."""
        try:
            self._follow(requests)
        except RunnerDisconnected:
            pass
        finally:
            with suppress(RunnerDisconnected):
                self._drain()
            self._writing.close()
            self._runner.close()

    def ended(self) -> RecordingEnded:
        """Return the report after the end."""
        return RecordingEnded(
            files=tuple(str(path) for path in self._writing.files),
            recorded=self._writing.recorded.by_topic,
            lost=self._writing.lost.by_topic,
            problem=self._writing.problem,
        )

    def _follow(self, requests: int) -> None:
        poll = select.poll()
        poll.register(requests, select.POLLIN)
        poll.register(self._runner.fileno(), select.POLLIN)
        names: dict[int, str] = {}
        for name, receiver in self._runner.receivers.items():
            for descriptor in receiver.fds():
                poll.register(descriptor, select.POLLIN)
                names[descriptor] = name
        while not self._runner.stopping and not self._writing.ended.is_set():
            ready = [descriptor for descriptor, _ in poll.poll(CHECK_MS)]
            for name in {names[descriptor] for descriptor in ready if descriptor in names}:
                self._read(name, self._runner.receivers[name])
            if requests in ready and not os.read(requests, 4096):
                return
            if self._runner.fileno() in ready:
                self._runner.check()
            if any(descriptor in names for descriptor in ready):
                time.sleep(PAUSE)

    def _drain(self) -> None:
        """Read what is queued now."""
        for name, receiver in self._runner.receivers.items():
            while self._read(name, receiver) and not self._writing.ended.is_set():
                pass

    def _read(self, name: str, receiver: Receiver) -> bool:
        """Read a batch; return whether there may be more."""
        receiver.woken()
        for _ in range(MAX_BATCH):
            try:
                delivery = receiver.receive()
            except BrokenRecord:
                self._writing.lost.add(name, 1)
                continue
            if delivery is None:
                return False
            self._writing.lost.add(name, self._sequences.missed(name, delivery.sequence))
            if delivery.kind is RecordKind.DATA:
                self._add(name, delivery)
        return True

    def _add(self, name: str, delivery: Delivery) -> None:
        try:
            array = delivery.value
            metadata = delivery.take_apart()[0].metadata
        except BrokenRecord:
            self._writing.lost.add(name, 1)
            return
        known = self._schemas.get(array.type)
        if known is None:
            schema = schema_of(array)
            known = schema, schema.serialize().to_pybytes(), str(array.type)[:200]
            self._schemas[array.type] = known
        schema, schema_bytes, type_name = known
        self._writing.add(
            Sent(
                topic=name,
                type_name=type_name,
                schema=schema_bytes,
                log_time=delivery.sent_ns + self._epoch_ns,
                publish_time=delivery.timestamp_ns,
                sequence=delivery.sequence,
                data=encode(array, metadata, schema, len(schema_bytes)),
            )
        )
