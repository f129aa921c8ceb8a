"""Queues of the runner, and the segments of ended producers."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from types import SimpleNamespace

import pyarrow as pa
import pytest
from support.runner.nodes import node
from support.runner.runs import open_descriptors, run_flow
from support.workspace import Workspace

from dora_daemon.link import LINK_NODE
from dora_daemon.runner.errors import QueueUnavailable
from dora_daemon.runner.machine.commands import AnnounceClosed
from dora_daemon.runner.machine.edges import Edge
from dora_daemon.runner.machine.streams import RUNNER_NODE
from dora_daemon.runner.nodes import queues
from dora_daemon.runner.nodes.local_nodes import LocalNodes
from dora_daemon.runner.nodes.publishing import RunnerOutputs
from dora_daemon.runner.nodes.queues import QueueEntry, QueueRegistry, hold_limit
from dora_daemon.runner.nodes.segments import SegmentTable
from dora_node_api.data import arrow
from dora_node_api.queue_policy import QueuePolicy
from dora_node_api.transport.consumer.receiving import Receiver
from dora_node_api.transport.producer.pool import POOL_SIZE_VARIABLE, Pool
from dora_node_api.transport.producer.sending import Sender
from dora_node_api.transport.shared import layout, queue
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.layout import RecordKind
from dora_node_api.transport.shared.queue import QueueEnds

EDGE = Edge("a", "x", "b", "in")


@pytest.fixture
def segments() -> Iterator[SegmentTable]:
    table = SegmentTable(LocalNodes())
    yield table
    table.close()


@pytest.fixture
def registry(segments: SegmentTable) -> Iterator[QueueRegistry]:
    registry = QueueRegistry(Board.create(), segments)
    yield registry
    registry.close()


def ends_of(descriptors: list[int]) -> list[int]:
    return [os.dup(descriptor) for descriptor in descriptors]


def producer(
    registry: QueueRegistry, segments: SegmentTable, entry: QueueEntry, incarnation: int
) -> Sender:
    """Return a sender of this incarnation, in this process."""

    def add(number: int, descriptor: int, size: int) -> None:
        segments.add(incarnation, number, os.dup(descriptor), size)

    sender = Sender(Pool(1 << 24, add), registry.board, incarnation)
    ends = QueueEnds.from_producer_fds(ends_of(entry.ends.for_producer()))
    sender.add_route("x", entry.spec, ends)
    return sender


def consumer(registry: QueueRegistry, segments: SegmentTable, entry: QueueEntry) -> Receiver:
    def open_segment(incarnation: int, number: int) -> tuple[int, int]:
        found = segments.find(incarnation, number)
        if found is None:
            raise LookupError(f"{incarnation}/{number}")
        return os.dup(found[0]), found[1]

    ends = QueueEnds.from_consumer_fds(ends_of(entry.ends.for_consumer()))
    return Receiver(entry.spec, ends, registry.board, open_segment)


def test_an_edge_has_one_queue(registry: QueueRegistry) -> None:
    entry, new = registry.ensure(EDGE, bound=5, policy=QueuePolicy.BACKPRESSURE)
    assert new
    assert registry.ensure(EDGE, bound=5) == (entry, False)
    assert entry.spec.backpressure
    assert registry.into("b") == registry.out_of("a") == registry.out_of("a", ["x"]) == [entry]
    assert registry.out_of("a", ["y"]) == registry.into("a") == []
    registry.drop(EDGE)
    assert registry.get(EDGE) is None
    again, _ = registry.ensure(EDGE, bound=5)
    assert again.spec.queue != entry.spec.queue


def test_queues_of_the_runner_are_always_drop_oldest(registry: QueueRegistry) -> None:
    entry, _ = registry.ensure(EDGE, bound=5, policy=QueuePolicy.BACKPRESSURE, writer=RUNNER_NODE)
    assert not entry.spec.backpressure


def test_a_spec_names_a_queue_that_a_link_fills(registry: QueueRegistry) -> None:
    assert not registry.ensure(EDGE, bound=5, writer="a")[0].spec.remote
    registry.drop(EDGE)
    assert registry.ensure(EDGE, bound=5, writer=LINK_NODE)[0].spec.remote


def test_segments_of_an_ended_producer_stay_until_its_messages_are_read(
    registry: QueueRegistry, segments: SegmentTable
) -> None:
    entry, _ = registry.ensure(EDGE, bound=5)
    sender = producer(registry, segments, entry, 7)
    for number in range(3):
        sender.send("x", arrow.encode(bytes([number]) * 100))
    sender.close()
    registry.producer_died("a", 7)
    registry.announce(AnnounceClosed("a"))
    registry.cleanup()
    assert segments.has_any(7)
    assert registry.queued("b") == 4
    receiver = consumer(registry, segments, entry)
    kinds = []
    while (delivery := receiver.receive()) is not None:
        kinds.append(delivery.kind)
        if delivery.kind == RecordKind.DATA:
            assert delivery.value.to_pylist() == [len(kinds) - 1] * 100
        del delivery
    assert kinds == [RecordKind.DATA] * 3 + [RecordKind.CLOSED]
    registry.cleanup()
    assert not segments.has_any(7)
    assert not registry.needs_cleanup
    receiver.close()


def test_dropping_a_queue_frees_the_segments_of_its_ended_producer(
    registry: QueueRegistry, segments: SegmentTable
) -> None:
    entry, _ = registry.ensure(EDGE, bound=5)
    sender = producer(registry, segments, entry, 7)
    sender.send("x", arrow.encode(b"1" * 100))
    sender.close()
    registry.producer_died("a", 7)
    assert registry.needs_cleanup
    registry.drop(EDGE)
    registry.cleanup()
    assert not segments.has_any(7)


def test_lines_of_the_runner_are_received_as_arrays_of_one_text(
    registry: QueueRegistry, segments: SegmentTable
) -> None:
    entry, _ = registry.ensure(EDGE, bound=2, writer=RUNNER_NODE)
    outputs = RunnerOutputs(registry.board, segments)
    outputs.send_text("a/x", "before the route")
    outputs.add_route(entry)
    for text in ("one", "two", "three"):
        outputs.send_text("a/x", text)
    receiver = consumer(registry, segments, entry)
    found = []
    while (delivery := receiver.receive()) is not None:
        assert delivery.value.type == pa.string()
        found += delivery.value.to_pylist()
    assert found == ["two", "three"]
    del delivery
    outputs.remove_route(entry)
    outputs.send_text("a/x", "after the route")
    receiver.close()
    outputs.close()


def test_no_descriptor_stays_open(segments: SegmentTable) -> None:
    before = open_descriptors()
    registry = QueueRegistry(Board.create(), segments)
    for number in range(20):
        registry.ensure(
            Edge("a", "x", f"c{number}", "in"), bound=5, policy=QueuePolicy.BACKPRESSURE
        )
    segments.add(3, 1, os.dup(0), 100)
    segments.add(3, 1, os.dup(0), 200)
    assert segments.find(3, 1) is not None
    segments.remove(9, 9)
    registry.close()
    segments.close()
    assert open_descriptors() <= before


def test_an_error_for_lack_of_descriptors_names_the_edge_and_the_limit(
    registry: QueueRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_: object) -> QueueEnds:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("dora_daemon.runner.nodes.queues.create_queue", none_left)
    with pytest.raises(QueueUnavailable) as caught:
        registry.ensure(EDGE, bound=5)
    assert "a/x -> b/in" in str(caught.value)
    assert "Too many open files" in str(caught.value)
    assert "ulimit -n" in str(caught.value)


def test_the_hold_limit_is_a_quarter_of_a_configured_pool() -> None:
    by_default = hold_limit(node("a"), {})
    assert by_default == hold_limit(None, {}) == 64 << 20
    sized = node("a").model_copy(update={"shared_memory_pool_size": 20 << 20})
    assert hold_limit(sized, {POOL_SIZE_VARIABLE: "1G"}) == 5 << 20
    assert hold_limit(node("a"), {POOL_SIZE_VARIABLE: "1GB"}) == 256 << 20
    own = node("a").model_copy(update={"env": {POOL_SIZE_VARIABLE: "8M"}})
    assert hold_limit(own, {POOL_SIZE_VARIABLE: "1GB"}) == 2 << 20
    assert hold_limit(node("a"), {POOL_SIZE_VARIABLE: "much"}) == by_default


def test_a_journal_takes_room_of_its_own(segments: SegmentTable) -> None:
    slots = layout.ledger_slots_for(5)
    edge_size = layout.consumer_size(slots, 0) + layout.producer_size(slots)
    registry = QueueRegistry(Board.create(layout.PAGE + edge_size), segments)
    try:
        with pytest.raises(QueueUnavailable, match="no room for another edge"):
            registry.ensure(EDGE, bound=5, policy=QueuePolicy.BACKPRESSURE, journal=True)
        entry, new = registry.ensure(EDGE, bound=5, policy=QueuePolicy.BACKPRESSURE)
        assert new
        assert not entry.spec.journal
    finally:
        registry.close()


def test_a_queue_smaller_than_configured_is_warned_about_once(
    segments: SegmentTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(descriptor: int, command: int, *size: int) -> int:
        """Fail like the kernel when a user has reached `pipe-user-pages-soft`."""
        if command == fcntl.F_SETPIPE_SZ:
            raise PermissionError("Operation not permitted")
        return fcntl.fcntl(descriptor, command, *size)

    warnings: list[str] = []
    registry = QueueRegistry(
        Board.create(), segments, lambda node, text: warnings.append(f"{node}: {text}")
    )
    try:
        registry.ensure(EDGE, bound=1000)
        assert warnings == []
        monkeypatch.setattr(queue, "fcntl", SimpleNamespace(**vars(fcntl) | {"fcntl": refused}))
        registry.ensure(Edge("a", "x", "c", "in"), bound=100)
        assert warnings == []
        registry.ensure(Edge("a", "x", "d", "in"), bound=1000)
        registry.ensure(Edge("a", "x", "e", "in"), bound=1000, policy=QueuePolicy.BACKPRESSURE)
    finally:
        monkeypatch.undo()
        registry.close()
    assert len(warnings) == 1
    assert warnings[0].startswith("d: a/x -> d/in: ")
    assert "of 1000 messages (queue_size)" in warnings[0]
    assert "fs.pipe-user-pages-soft" in warnings[0]


def test_a_warning_about_a_queue_is_in_its_readers_log(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "shortfall", lambda spec, ends: "it is short")
    workspace.node("a", "from dora import Node\nNode()\n")
    workspace.node("b", "from dora import Node\nfor event in Node(): pass\n")
    nodes = [
        {"id": "a", "path": "a.py", "outputs": ["x"]},
        {"id": "b", "path": "b.py", "inputs": {"in": "a/x"}},
    ]
    ran = run_flow(workspace, {"nodes": nodes})
    assert ran.lines("b") == ["a/x -> b/in: it is short. Other queues may be as short"]
