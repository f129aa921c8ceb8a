"""Sender of one stream: rounds, the window and messages of all sizes, without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
from support.queues import Edge, Segments, send

from dora_daemon.link.protocol import frames
from dora_daemon.link.protocol.frames import FrameKind
from dora_daemon.link.protocol.hello import EnteringStream
from dora_daemon.link.protocol.priority import Priority
from dora_daemon.link.streams.large_message import CHUNK
from dora_daemon.link.streams.sender import MIN_WINDOW, StreamSender
from dora_daemon.link.streams.sender_thread import Outbox, Turn
from dora_node_api.transport.consumer.journal import LinkReceiver
from dora_node_api.transport.shared.board import Board

NUMBER = 5


class Sink:
    """Keeps the frames while it is connected."""

    link_id = 1
    their_link = 2

    def __init__(self) -> None:
        self.connected = True
        self.piece = 1 << 30
        """Bytes of a large message that the path takes at once."""
        self.small: list[int] = []
        """Sequence numbers of small messages."""
        self.frames: list[tuple[Priority, bytes]] = []

    def send(self, priority: Priority, frame: bytes, *, more: bool = False) -> bool:
        if self.connected:
            self.frames.append((priority, frame))
        return self.connected

    def room(self, most: int, stop: Callable[[], bool]) -> int:
        assert not stop()
        return min(most, self.piece)

    def send_image(self, stream: int, sequence: int, *_: object) -> bool:
        assert stream == NUMBER
        self.small += [sequence] * self.connected
        return self.connected

    def send_images(self, images: Sequence[bytes | memoryview], *, quick: bool) -> bool:
        frame = frames.images_head(1, 2, (0, 0)) + b"".join(images)
        if self.connected:
            for stream, found in frames.read_images(frame):
                assert stream == NUMBER
                self.small += [image[0] for image in found]
        return self.connected


class Stream:
    """A queue of a producer, and the stream that reads it; its turns are given by hand."""

    def __init__(self, *, policy: str = "drop_oldest", bound: int = 100) -> None:
        self.board, self.segments = Board.create(1 << 20), Segments()
        self.edge = Edge(self.board, self.segments, policy=policy, bound=bound, journal=True)
        self.producer = self.edge.sender()
        self.sink = Sink()
        self.notes: list[str] = []
        self.stream = self.new_stream()

    def new_stream(self) -> StreamSender:
        receiver = self.edge.receiver()
        assert isinstance(receiver, LinkReceiver)
        return StreamSender(
            NUMBER, "camera", "out", self.sink, receiver,
            window_messages=MIN_WINDOW, window_bytes=32 << 20, note=self.notes.append,
        )  # fmt: skip

    def put(self, count: int, size: int = 64) -> None:
        for number in range(count):
            send(self.producer, number, size)

    def resume(self, *, accepted: int = 0, stored: int = 0) -> None:
        self.stream.resume(
            EnteringStream(
                node="camera",
                output="out",
                run_id="a-1",
                accepted=accepted,
                stored=stored,
                listening=True,
            )
        )

    def work(self) -> Turn:
        """Give it turns until it has to wait."""
        outbox = Outbox(self.sink)
        while (turn := self.stream.work(outbox)) is Turn.AGAIN:
            outbox.flush()
        outbox.flush()
        return turn

    def close(self) -> None:
        self.stream.end(close=True)
        self.stream.finish()
        self.producer.close()
        self.edge.close()
        self.board.close()
        self.segments.close()
        assert self.notes == []
        vars(self).clear()  # their views keep the memory of the board


@pytest.fixture
def stream() -> Iterator[Stream]:
    made = Stream()
    yield made
    made.close()


def test_messages_wait_for_the_first_round(stream: Stream) -> None:
    stream.put(3)
    assert stream.work() is Turn.WAKE
    assert stream.sink.small == []
    stream.resume()
    assert stream.work() is Turn.MESSAGE
    assert stream.sink.small == [1, 2, 3]
    assert stream.stream.unsent() == 3
    stream.stream.acknowledged(2, 0, 0)
    assert (stream.stream.unsent(), stream.stream.leaving().given_up) == (1, 2)


def test_a_round_sends_again_what_the_peer_has_not_accepted(stream: Stream) -> None:
    stream.resume()
    stream.put(5)
    stream.work()
    stream.stream.pause()
    stream.put(1)
    assert stream.work() is Turn.WAKE
    stream.resume(accepted=3, stored=1)
    assert stream.work() is Turn.MESSAGE
    assert stream.sink.small == [1, 2, 3, 4, 5, 4, 5, 6]
    assert (stream.stream.resent, stream.stream.lost) == (2, 0)
    assert stream.stream.leaving().given_up == 1


def test_a_full_window_waits_for_an_acknowledgement(stream: Stream) -> None:
    stream.resume()
    stream.put(MIN_WINDOW + 2)
    stream.work()
    stream.stream.acknowledged(0, 0, 0)
    sent = len(stream.sink.small)
    assert sent == stream.stream.leaving().window == MIN_WINDOW
    assert stream.work() is Turn.WAKE
    stream.stream.acknowledged(1, 0, 0)
    stream.work()
    assert stream.sink.small[sent:] == [MIN_WINDOW + 1]


def test_the_only_message_that_waits_is_sent_at_once(stream: Stream) -> None:
    stream.resume()
    stream.put(2)
    stream.work()
    stream.put(1)
    assert stream.stream.send_only()
    assert not stream.stream.send_only(), "nothing waits"
    assert stream.sink.small == [1, 2, 3]
    assert (stream.stream.messages, stream.stream.waiting) == (3, 3)


def test_a_large_message_crosses_in_frames_of_its_own(stream: Stream) -> None:
    stream.resume()
    stream.put(1)
    stream.put(1, size=4 * CHUNK)
    stream.work()
    assert stream.sink.small == [1]
    kinds = [frames.read_head(frame)[0] for _, frame in stream.sink.frames]
    assert kinds == [FrameKind.DATA.value, *[FrameKind.CHUNK.value] * 3]
    assert {priority for priority, _ in stream.sink.frames} == {Priority.MIDDLE}
    first = frames.read_data(stream.sink.frames[0][1])
    assert (first.sequence, first.previous, first.parts.nbytes) == (2, 1, 4 * CHUNK)
    assert stream.stream.sends_large
    stream.put(1)
    assert not stream.stream.send_only(), "its small messages no longer overtake"


def test_a_large_message_crosses_in_pieces_that_the_path_takes(stream: Stream) -> None:
    stream.resume()
    stream.sink.piece = 3000
    stream.put(1, size=2 * CHUNK)
    stream.work()
    sizes = [len(frame) for _, frame in stream.sink.frames]
    assert len(sizes) == 2 * CHUNK // 3000 + 1
    assert max(sizes) < 3200
    offsets = [frames.read_chunk(frame)[1] for _, frame in stream.sink.frames[1:]]
    assert offsets == list(range(3000, 2 * CHUNK, 3000))


def test_the_first_large_message_waits_for_the_next_turn(stream: Stream) -> None:
    """The thread that it shares with other streams passes it on to another one before."""
    stream.resume()
    stream.work()
    stream.put(1, size=4 * CHUNK)
    assert stream.stream.work(Outbox(stream.sink)) is Turn.AGAIN
    assert stream.stream.sends_large
    assert (stream.sink.frames, stream.stream.unsent()) == ([], 1)
    stream.stream.discard()
    stream.work()
    assert (stream.sink.frames, stream.stream.unsent()) == ([], 0)
    stream.resume()
    stream.put(1, size=4 * CHUNK)
    stream.work()
    assert len(stream.sink.frames) == 4


def test_frames_fit_into_batches_of_zenoh(stream: Stream) -> None:
    stream.resume()
    stream.put(2, size=3 * CHUNK)
    stream.work()
    longest = max(len(frame) for _, frame in stream.sink.frames)
    assert CHUNK < longest < 65_535 - 512, "the rest is for Zenoh's own head with the key"


def test_a_lost_session_stops_it_until_the_next_round(stream: Stream) -> None:
    stream.resume()
    stream.sink.connected = False
    stream.put(2)
    stream.work()
    assert stream.stream.waiting == 2
    stream.sink.connected = True
    assert stream.work() is Turn.WAKE
    stream.resume()
    stream.work()
    assert (stream.sink.small, stream.stream.resent) == ([1, 2], 2)


def test_messages_are_dropped_without_a_consumer(stream: Stream) -> None:
    stream.resume()
    stream.put(2)
    stream.work()
    stream.stream.discard()
    stream.put(3)
    stream.work()
    assert stream.stream.unsent() == 0
    assert (stream.sink.small, stream.stream.lost) == ([1, 2], 2)


def test_the_next_process_sends_again_what_was_not_stored() -> None:
    stream = Stream(policy="backpressure")
    stream.put(4)
    stream.resume()
    stream.work()
    stream.stream.acknowledged(1, 0, 0)
    stream.stream.end(close=False, forget=False)
    assert stream.work() is Turn.ENDED
    stream.stream.finish()
    killed = stream.stream  # as long as it lives, it keeps its messages
    assert killed.ended
    stream.edge.keeper.consumer_died()
    stream.sink.small.clear()
    stream.stream = stream.new_stream()
    stream.resume(accepted=2, stored=2)
    stream.work()
    assert stream.sink.small == [3, 4]
    assert stream.stream.leaving().given_up == 2
    killed.receiver.close()
    stream.close()


def test_a_message_in_the_outbox_keeps_its_memory() -> None:
    stream = Stream(policy="backpressure")
    stream.put(3)
    stream.resume()
    outbox = Outbox(stream.sink)
    while stream.stream.work(outbox) is Turn.AGAIN:
        pass
    written = b"".join(outbox._images)
    assert written
    stream.stream.discard()
    assert not stream.stream.waiting
    # The producer uses again what is released; after 64 messages also what was acknowledged.
    for _ in range(15):
        stream.put(3)
        stream.stream.work(Outbox(stream.sink))
    assert b"".join(outbox._images) == written
    outbox.flush()
    stream.close()


def test_the_end_of_the_source_follows_its_messages(stream: Stream) -> None:
    stream.resume()
    stream.put(1)
    stream.edge.keeper.announce_closed()
    stream.work()
    assert stream.sink.small == [1]
    (sent,) = stream.sink.frames
    assert frames.read_head(sent[1])[0] == FrameKind.LIFECYCLE.value
    assert frames.read_lifecycle(sent[1]).previous == 1
