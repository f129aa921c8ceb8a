"""Streams that share a thread: what goes together, and who waits for whom."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import cast

import pytest
from support.runner.runs import open_descriptors
from support.waiting import wait_until

from dora_daemon.link.protocol.priority import Priority
from dora_daemon.link.streams.sender_thread import BATCH, Outbox, SenderThread, Turn
from dora_node_api.transport.consumer.receiving import Receiver


class Sink:
    """Keeps the frames; each put waits until it is allowed."""

    link_id = 1
    their_link = 2

    def __init__(self) -> None:
        self.connected = True
        self.putting = threading.Event()
        self.allowed = threading.Event()
        self.allowed.set()
        self.frames: list[list[bytes]] = []

    def send(self, priority: Priority, frame: bytes, *, more: bool = False) -> bool:
        raise AssertionError(f"sent {frame!r} with {priority}")

    def room(self, most: int, stop: Callable[[], bool]) -> int:
        raise AssertionError("no message is large")

    def send_image(self, *_: object) -> bool:
        raise AssertionError("the fake streams send through the outbox")

    def send_images(self, images: Sequence[bytes | memoryview], *, quick: bool) -> bool:
        self.putting.set()
        assert self.allowed.wait(20)
        self.frames.append([bytes(image) for image in images[1::2]])
        return self.connected


class Stream:
    """Sends what is put into it."""

    def __init__(self) -> None:
        self.thread: SenderThread | None = None
        self.receiver = cast(Receiver, object())
        self.sends_large = False
        self.waiting: deque[bytes] = deque()
        self.large: threading.Event | None = None
        """Of a stream with large messages: set when the put of the second one is done."""
        self.ending = False
        self.stopped = 0
        self.finished = threading.Event()

    def put(self, *messages: bytes) -> None:
        self.waiting += messages
        assert self.thread is not None
        self.thread.wake()

    def end(self) -> None:
        self.ending = True
        assert self.thread is not None
        self.thread.wake()

    def work(self, outbox: Outbox) -> Turn:
        if self.ending:
            return Turn.ENDED
        if self.sends_large and self.large is not None:
            assert self.large.wait(20)
        self.sends_large = self.large is not None
        while self.waiting:
            message = self.waiting.popleft()
            outbox.add(self, b"head", (message,), len(message), None)
            if outbox.full:
                return Turn.AGAIN
        return Turn.WAKE

    def send_only(self) -> bool:
        return False

    def stop_sending(self) -> None:
        self.stopped += 1

    def finish(self) -> None:
        self.finished.set()


class Shared:
    """Streams on one thread."""

    def __init__(self, count: int) -> None:
        self.sink = Sink()
        self.notes: list[str] = []
        self.thread = SenderThread(self.sink, "out b", self.notes.append)
        self.streams = [Stream() for _ in range(count)]
        for stream in self.streams:
            self.thread.add(stream)

    def end(self) -> None:
        self.sink.allowed.set()
        for stream in self.streams:
            stream.end()
        for stream in self.streams:
            assert stream.finished.wait(20)
        for thread in threading.enumerate():
            if thread.name.startswith("out b"):
                thread.join(20)  # it closes its pipe


@pytest.fixture
def shared() -> Shared:
    return Shared(3)


def test_messages_that_wait_at_the_same_time_go_in_one_frame(shared: Shared) -> None:
    first, second, third = shared.streams
    shared.sink.allowed.clear()
    first.put(b"1")
    assert shared.sink.putting.wait(20)
    second.put(b"2", b"3")
    third.put(b"4")
    shared.sink.allowed.set()
    wait_until(lambda: len(shared.sink.frames) == 2, what="both frames")
    assert shared.sink.frames == [[b"1"], [b"2", b"3", b"4"]]
    shared.end()


def test_a_stream_with_much_to_send_lets_the_others_send(shared: Shared) -> None:
    busy, other, _ = shared.streams
    shared.sink.allowed.clear()
    busy.put(b"first")
    assert shared.sink.putting.wait(20)
    large = b"x" * BATCH
    busy.put(*[large] * 50)
    other.put(b"small")
    shared.sink.allowed.set()
    wait_until(lambda: not busy.waiting and len(shared.sink.frames) > 50, what="all frames")
    place = [b"small" in frame for frame in shared.sink.frames].index(True)
    assert place <= 3
    shared.end()


def test_a_stream_with_large_messages_makes_no_other_wait(shared: Shared) -> None:
    large, other, _ = shared.streams
    large.large = threading.Event()
    shared.thread.wake()
    wait_until(lambda: large.thread is not shared.thread, what="a thread of its own")
    other.put(b"small")
    wait_until(lambda: shared.sink.frames == [[b"small"]], what="the other message")
    large.put(b"later")
    large.large.set()
    wait_until(lambda: shared.sink.frames[1:] == [[b"later"]], what="the message after it")
    shared.end()


def test_all_streams_of_a_frame_stop_when_it_cannot_be_sent(shared: Shared) -> None:
    first, second, third = shared.streams
    shared.sink.allowed.clear()
    first.put(b"1")
    assert shared.sink.putting.wait(20)
    second.put(b"2")
    third.put(b"3")
    shared.sink.connected = False
    shared.sink.allowed.set()
    wait_until(lambda: [s.stopped for s in shared.streams] == [1, 1, 1], what="them to stop")
    shared.end()


def test_the_thread_ends_with_its_last_stream_and_starts_again() -> None:
    before = open_descriptors()
    shared = Shared(1)
    for number in range(3):
        shared.end()
        wait_until(lambda: open_descriptors() == before, what="the thread to end")
        shared.streams = [Stream()]
        shared.thread.add(shared.streams[0])
        shared.streams[0].put(b"%d" % number)
        wait_until(lambda n=number: len(shared.sink.frames) == n + 1, what="a frame")  # type: ignore[misc]
    shared.end()
    wait_until(lambda: open_descriptors() == before, what="the thread to end")
    assert not shared.notes
