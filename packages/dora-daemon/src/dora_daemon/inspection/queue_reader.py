"""Reads the queues of an inspector or a recorder, in batches."""

from __future__ import annotations

import select
import time
from abc import ABC, abstractmethod

from dora_daemon.inspection.runner_connection import InspectorConnection
from dora_node_api.transport.consumer.delivery import Delivery
from dora_node_api.transport.shared.errors import BrokenRecord
from dora_node_api.transport.shared.layout import RecordKind

PAUSE = 0.001
"""Seconds between reads of busy queues, which limits the load."""
MAX_BATCH = 128
"""Messages of one output before the next output is read."""


class Sequences:
    """Finds messages that a queue has dropped: sequence numbers of a queue have no gaps."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def missed(self, topic: str, sequence: int) -> int:
        """Return the number of messages between the last one and this one."""
        missed = sequence - self._last.get(topic, 0) - 1
        self._last[topic] = sequence
        return max(missed, 0)


class Collector(ABC):
    """Receiver of the messages that a `QueueReader` reads."""

    @abstractmethod
    def add(self, name: str, delivery: Delivery) -> None:
        """Take a message; its memory is released afterwards."""

    @abstractmethod
    def drop(self, name: str, count: int) -> None:
        """Note messages that were dropped before they were read."""

    def interrupt(self, name: str) -> None:  # noqa: B027 - most collectors ignore it
        """Note that the node restarted or ended."""

    @abstractmethod
    def broken(self, name: str, error: BrokenRecord) -> None:
        """Note a message that could not be read."""


class QueueReader:
    """Waits for messages, requests and the end of the runner; reads the messages."""

    def __init__(self, runner: InspectorConnection, requests: int, collector: Collector) -> None:
        """``requests``: descriptor of which :meth:`turn` reports that it is readable."""
        self._runner = runner
        self._requests = requests
        self._collector = collector
        self._sequences = Sequences()
        self._names: dict[int, str] = {}
        self._poll = select.poll()
        self._poll.register(requests, select.POLLIN)
        self._poll.register(runner.fileno(), select.POLLIN)
        for name, receiver in runner.receivers.items():
            for descriptor in receiver.fds():
                self._poll.register(descriptor, select.POLLIN)
                self._names[descriptor] = name

    def turn(self, milliseconds: float | None) -> bool:
        """Read a batch of each output that has messages; return whether there are requests.

        Waits ``milliseconds`` at most (None: any time). Raises RunnerDisconnected.
        """
        ready = [descriptor for descriptor, _ in self._poll.poll(milliseconds)]
        busy = {self._names[descriptor] for descriptor in ready if descriptor in self._names}
        for name in busy:
            self.read(name)
        if self._runner.fileno() in ready:
            self._runner.check()
        if busy:
            time.sleep(PAUSE)
        return self._requests in ready

    def read(self, name: str) -> bool:
        """Read a batch of one output; return whether there may be more."""
        receiver = self._runner.receivers[name]
        receiver.woken()
        for _ in range(MAX_BATCH):
            try:
                delivery = receiver.receive()
            except BrokenRecord as error:
                self._collector.broken(name, error)
                continue
            if delivery is None:
                return False
            missed = self._sequences.missed(name, delivery.sequence)
            if missed:
                self._collector.drop(name, missed)
            if delivery.kind is RecordKind.DATA:
                self._collector.add(name, delivery)
            else:
                self._collector.interrupt(name)
        return True
