"""Queues of log lines whose ends cannot be opened for lack of descriptors: made again later."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import anyio
import pytest
from support.runner.nodes import node
from support.runner.runs import open_descriptors

from dora_daemon.runner.errors import QueueUnavailable
from dora_daemon.runner.link.supervisor import StreamQueues
from dora_daemon.runner.machine.streams import IncomingStreamSpec, MachineStreams
from dora_daemon.runner.nodes.local_nodes import LocalNodes
from dora_daemon.runner.nodes.publishing import RunnerOutputs, log_route
from dora_daemon.runner.nodes.queues import QueueRegistry
from dora_daemon.runner.nodes.routing import QueueRouter
from dora_daemon.runner.nodes.segments import SegmentTable
from dora_node_api.transport.shared.board import Board


class Services:
    """What queues and their routes need of a runner."""

    def __init__(self) -> None:
        nodes = LocalNodes()
        self.segments = SegmentTable(nodes)
        self.registry = QueueRegistry(Board.create(), self.segments)
        self.outputs = RunnerOutputs(self.registry.board, self.segments)
        self.logs = None
        self.router = QueueRouter(nodes, self.registry, self.outputs)


@pytest.fixture
def services() -> Iterator[Services]:
    made = Services()
    yield made
    made.outputs.close()
    made.registry.close()
    made.segments.close()
    vars(made).clear()  # the memory of the board is freed with its last reference


@contextmanager
def one_free_descriptor(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the second copy of a descriptor fail."""
    duplicate, count = os.dup, itertools.count()

    def one_is_left(descriptor: int) -> int:
        if next(count):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return duplicate(descriptor)

    with monkeypatch.context() as context:
        context.setattr(os, "dup", one_is_left)
        yield


def test_an_input_without_its_producer_is_made_again(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = node("b", logs=True)
    before = open_descriptors()
    with one_free_descriptor(monkeypatch), pytest.raises(QueueUnavailable):
        services.router.create_inputs(reader)
    assert open_descriptors() == before
    services.router.create_inputs(reader)
    services.outputs.send_text(log_route("b", "logs"), "line")
    assert services.registry.queued("b") == 1


def test_a_stream_without_its_reader_is_made_again(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = IncomingStreamSpec("other", "dora", "other/logs", logs=True)

    async def apply() -> None:
        queues = StreamQueues(cast("Any", services))
        queues.streams = MachineStreams(incoming=(stream,))
        before = open_descriptors()
        with one_free_descriptor(monkeypatch), pytest.raises(QueueUnavailable):
            queues.apply(set())
        assert open_descriptors() == before
        queues.apply(set())
        assert services.registry.get(stream.log_edge) is not None
        queues.close()

    anyio.run(apply)
