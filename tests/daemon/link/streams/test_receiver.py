"""Receiver of one stream: order, acknowledgements and messages that wait, without a network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pyarrow as pa
import pytest
from daemon.link.codecs.pictures import payload, picture
from daemon.link.streams.test_images import image_of
from support.waiting import wait_until

from dora_config.dataflow.compression import CodecName, Compression
from dora_daemon.link.codecs.encoding import StreamEncoder
from dora_daemon.link.errors import WireError
from dora_daemon.link.protocol import frames
from dora_daemon.link.protocol.clocks import ClockOffset
from dora_daemon.link.protocol.frames import FrameKind, LifecycleEvent
from dora_daemon.link.protocol.hello import LeavingStream
from dora_daemon.link.protocol.messages import SourceEvent, ToRunner
from dora_daemon.link.streams.receiver import (
    ACK_AT_ONCE_BYTES,
    MAX_BYTES,
    AckPolicy,
    StreamReceiver,
)
from dora_node_api.transport.producer.forwarding import Forwarder
from dora_node_api.transport.shared.errors import PoolExhausted
from dora_node_api.transport.shared.layout import RecordKind
from dora_node_api.transport.shared.payload import BlockImage, Payload

IMAGE = image_of(pa.array([1, 2, 3]))
WINDOW = 16


class FakeForwarder:
    """Local queues; `full` makes `forward` necessary, which blocks while it is set."""

    def __init__(self) -> None:
        self.stored: list[int] = []
        self.skipped: list[int] = []
        self.full = False
        self.broken = False

    def run_hash(self, _output: str) -> int:
        return 0

    def resume(self, _output: str, _run: int) -> int:
        return 0

    def forward(
        self,
        _output: str,
        _image: BlockImage,
        _total: int,
        source: int,
        _sent_ns: int,
        _flags: int,
        *,
        wait: bool = False,
    ) -> bool:
        if self.broken and not wait:
            raise OSError("no memory")
        if wait:
            wait_until(lambda: not self.full, what="room")
        if not self.full:
            self.stored.append(source)
        return not self.full

    def announce(
        self, _output: str, _kind: RecordKind, _error: str = "", *, source: int = 0
    ) -> bool:
        self.stored.append(source)
        return True

    def waits(self, _output: str) -> bool:
        return False

    def skip(self, _output: str, source: int) -> None:
        self.skipped.append(source)


class FakePeer:
    def __init__(self) -> None:
        self.clock = ClockOffset()
        self.acknowledged: list[tuple[int, bool]] = []

    @property
    def sender(self) -> FakePeer:
        return self

    def stored(self, stream: StreamReceiver, *, at_once: bool) -> None:
        self.acknowledged.append((stream.stored, at_once))


class Stream:
    def __init__(self) -> None:
        self.forwarder, self.peer = FakeForwarder(), FakePeer()
        self.sent: list[ToRunner] = []
        self.notes: list[str] = []
        self.stream = StreamReceiver(
            "a", "n", "o", self.peer, cast(Forwarder, self.forwarder),
            send=self.sent.append, note=self.notes.append,
        )  # fmt: skip
        self.stream.begin_round(
            "a-1", LeavingStream(number=1, node="n", output="o", given_up=0, window=WINDOW)
        )

    def receive(self, *numbers: int, previous: int | None = None, image: bytes = IMAGE) -> None:
        """Receive messages in one frame, each after the number before it."""
        frame = frames.images_head(7, 3, (0, 0))
        for number in numbers:
            before = number - 1 if previous is None else previous
            frame += frames.image_head(1, number, before, 0, 0, len(image)) + image
        self.receive_frame(frame)

    def receive_alone(self, number: int, *, image: bytes = IMAGE, flags: int = 0) -> None:
        """Receive a message as the only one of its frame."""
        frame = frames.single_image_head(7, 3, (0, 0), 1, number, number - 1, 0, flags)
        frame += image
        self.stream.images(frame, [frames.read_image(frame)[2]], 0)

    def receive_frame(self, frame: bytes) -> None:
        for _, images in frames.read_images(frame):
            self.stream.images(frame, images, 0)


@pytest.fixture
def made() -> Iterator[Stream]:
    made = Stream()
    yield made
    made.stream.end()
    made.stream.join(10)


def test_messages_are_stored_once_and_in_order(made: Stream) -> None:
    made.receive(1, 2)
    made.receive(4, 5)
    assert made.forwarder.stored == [1, 2]
    assert made.stream.waiting == 2
    made.receive(2, 3, 4)
    assert made.forwarder.stored == [1, 2, 3, 4, 5]
    assert made.stream.messages == 5
    made.receive(9, previous=5)  # those between were dropped in the sender's queue
    assert made.forwarder.stored[-1] == 9
    assert made.stream.lost == 0


def test_a_frame_is_acknowledged_as_a_whole(made: Stream) -> None:
    made.receive(1, 2, 3)
    assert made.peer.acknowledged == [(3, False)]


def test_a_quarter_of_the_window_is_acknowledged_at_once(made: Stream) -> None:
    for number in range(1, WINDOW // 4 + 2):
        made.receive(number)
    at_once = [at_once for _, at_once in made.peer.acknowledged]
    assert at_once == [False] * (WINDOW // 4 - 1) + [True, False]


def test_single_messages_are_stored_once_and_in_order(made: Stream) -> None:
    for number in (1, 2, 2, 4, 3, 5, 1):
        made.receive_alone(number)
    assert made.forwarder.stored == [1, 2, 3, 4, 5]
    assert (made.stream.messages, made.stream.stored, made.stream.lost) == (5, 5, 0)
    assert [number for number, _ in made.peer.acknowledged][-1] == 5


def test_single_messages_are_acknowledged_like_others(made: Stream) -> None:
    for number in range(1, WINDOW // 4 + 2):
        made.receive_alone(number)
    at_once = [at_once for _, at_once in made.peer.acknowledged]
    assert at_once == [False] * (WINDOW // 4 - 1) + [True, False]


def test_an_unusual_single_message_is_stored_like_others(made: Stream) -> None:
    made.receive_alone(1, flags=1)
    made.receive_alone(2, image=image_of(pa.array(["text"])))
    made.receive_alone(3, image=image_of(pa.array([1]), b"invalid metadata"))
    made.forwarder.broken = True
    made.receive_alone(4)
    wait_until(lambda: made.forwarder.stored == [1, 2, 4], what="the stream's thread")
    assert made.forwarder.skipped == [3]
    assert made.stream.stored == 4


def test_a_full_queue_keeps_single_messages_in_order(made: Stream) -> None:
    made.forwarder.full = True
    made.receive_alone(1)
    made.receive_alone(2)
    assert made.peer.acknowledged == []
    made.forwarder.full = False
    wait_until(lambda: made.stream.waiting == 0, what="the thread to catch up")
    made.receive_alone(3)
    assert made.forwarder.stored == [1, 2, 3]


def test_a_full_queue_makes_only_the_streams_thread_wait(made: Stream) -> None:
    made.forwarder.full = True
    made.receive(1, 2)
    assert made.peer.acknowledged == []
    made.forwarder.full = False
    wait_until(lambda: made.stream.stored == 2, what="both messages")
    assert made.forwarder.stored == [1, 2]
    wait_until(lambda: made.stream.waiting == 0, what="the thread to catch up")
    made.receive(3)
    assert made.forwarder.stored == [1, 2, 3]


def test_an_invalid_message_is_skipped_and_counted(made: Stream) -> None:
    made.receive(1, image=image_of(pa.array([1, 2, 3]), changes={"length": 9}))
    made.receive(2)
    assert made.forwarder.skipped == [1]
    assert made.forwarder.stored == [2]
    assert (made.stream.invalid, made.stream.stored) == (1, 2)
    assert "n/o from a: dropped message 1" in made.notes[0]


def test_what_precedes_a_malformed_image_is_acknowledged(made: Stream) -> None:
    frame = frames.images_head(7, 3, (0, 0)) + frames.image_head(1, 1, 0, 0, 0, len(IMAGE)) + IMAGE
    with pytest.raises(WireError):
        made.receive_frame(frame + frames.image_head(1, 2, 1, 0, 0, 100))
    assert made.peer.acknowledged == [(1, False)]


def test_a_lifecycle_event_follows_the_messages_before_it(made: Stream) -> None:
    made.stream.lifecycle(LifecycleEvent(3, 2, RecordKind.CLOSED, ""))
    made.receive(1, 2)
    wait_until(lambda: made.stream.stored == 3, what="the event")
    assert made.forwarder.stored == [1, 2, 3]
    assert made.sent == [SourceEvent(machine="a", node="n", output="o", event="closed")]


def test_a_new_run_begins_with_its_own_numbers(made: Stream) -> None:
    made.receive(1, 2, 3)
    made.stream.begin_round(
        "a-2", LeavingStream(number=2, node="n", output="o", given_up=0, window=WINDOW)
    )
    assert made.stream.entering().accepted == 0
    made.receive(1)
    wait_until(lambda: made.stream.stored == 1, what="the new message")
    # The announcement of the restart has no number.
    assert made.forwarder.stored == [1, 2, 3, 0, 1]


def acknowledged(policy: AckPolicy, *sizes: int) -> list[bool | None]:
    """Store messages one by one; return what is to be done after each."""
    found = []
    for size in sizes:
        policy.stored(size)
        found.append(policy.take())
    return found


def test_nothing_is_due_until_a_message_is_stored() -> None:
    policy = AckPolicy()
    assert policy.take() is None
    policy.begin_round(100)
    policy.stored(1)
    policy.stored(1)
    assert policy.take() is False
    assert policy.take() is None


def test_a_quarter_of_the_window_does_not_wait() -> None:
    policy = AckPolicy()
    policy.begin_round(16)
    assert acknowledged(policy, *[1] * 9) == [False] * 3 + [True] + [False] * 3 + [True] + [False]


def test_a_small_window_never_waits() -> None:
    policy = AckPolicy()
    policy.begin_round(3)
    assert acknowledged(policy, 1, 1) == [True, True]


def test_large_messages_and_many_bytes_do_not_wait() -> None:
    policy = AckPolicy()
    policy.begin_round(1000)
    assert acknowledged(policy, ACK_AT_ONCE_BYTES, ACK_AT_ONCE_BYTES + 1, ACK_AT_ONCE_BYTES) == [
        False,
        True,
        False,
    ]
    count = MAX_BYTES // ACK_AT_ONCE_BYTES - 2
    assert acknowledged(policy, *[ACK_AT_ONCE_BYTES] * (count + 1))[-2:] == [False, True]


class Restored:
    """Memory of a block for pictures that are restored."""

    def __init__(self, forwarder: FakeForwarder) -> None:
        self.pictures: list[bytes] = []
        self.left: int | None = None
        """Blocks for which there is memory; None: for all."""
        forwarder.allocate = self._allocate  # type: ignore[attr-defined]
        forwarder.fill_head = self._fill_head  # type: ignore[attr-defined]

    def _allocate(self, _output: str, total: int) -> bytearray:
        if self.left == 0:
            self.left = None
            raise PoolExhausted(total, 0, {})
        self.left = None if self.left is None else self.left - 1
        return bytearray(total)

    def _fill_head(self, hold: bytearray, parts: Payload) -> memoryview:
        self.pictures.append(b"")
        return memoryview(hold)[parts.data_offset :]


def coded_frame(number: int, coded: bytes, parts: Payload) -> bytes:
    crossing = parts.resized(len(coded))
    head = frames.head(FrameKind.DATA, 7, 3, stream=1, flags=frames.FLAG_CODED)
    return frames.data_head(head, number, number - 1, 0, crossing) + coded


def test_a_compressed_message_is_acknowledged_at_once_although_it_is_small(made: Stream) -> None:
    Restored(made.forwarder)
    encoder = StreamEncoder(Compression(codec="jpeg"), pytest.fail)
    parts, data = payload(picture(1))
    coded = encoder.encode(1, parts, data)
    assert coded is not None
    assert len(coded) < ACK_AT_ONCE_BYTES < parts.nbytes
    made.stream.data(frames.read_data(coded_frame(1, coded, parts)))
    wait_until(lambda: made.peer.acknowledged, what="an acknowledgement")
    assert made.peer.acknowledged == [(1, True)], "its sender keeps the whole picture"


def test_a_damaged_picture_costs_itself_and_one_line(made: Stream) -> None:
    Restored(made.forwarder)
    encoder = StreamEncoder(Compression(codec="jpeg"), pytest.fail)
    parts, data = payload(picture(1))
    coded = encoder.encode(1, parts, data)
    assert coded is not None
    for number in range(1, 6):
        sent = coded[: len(coded) // 2] if number == 3 else coded
        made.stream.data(frames.read_data(coded_frame(number, sent, parts)))
    wait_until(lambda: made.stream.stored == 5, what="all pictures")
    assert made.forwarder.stored == [1, 2, 4, 5]
    assert (made.forwarder.skipped, made.stream.lost) == ([3], 1)
    (note,) = made.notes
    assert note.startswith("n/o from a: dropped message 3, which cannot be decompressed: ")


@pytest.mark.parametrize("codec", ["jpeg", "h264"])
def test_memory_that_runs_out_costs_no_wrong_picture(made: Stream, codec: CodecName) -> None:
    restored = Restored(made.forwarder)
    restored.left = 4
    now = 0
    encoder = StreamEncoder(Compression(codec=codec), pytest.fail, lambda: now)
    for number in range(1, 41):
        now += 1_000_000_000 // 30
        parts, data = payload(picture(number))
        coded = encoder.encode(number, parts, data)
        assert coded is not None
        made.stream.data(frames.read_data(coded_frame(number, coded, parts)))
    wait_until(lambda: made.stream.stored == 40, what="all pictures")
    dropped = [5] if codec == "jpeg" else list(range(5, 32))
    assert made.forwarder.skipped == dropped
    assert made.stream.lost == len(dropped)
    assert len(made.notes) == (1 if codec == "jpeg" else 2)
    assert made.notes[0].startswith("dropped a message of n/o: ")


def test_pictures_until_the_next_key_frame_cost_one_line(made: Stream) -> None:
    Restored(made.forwarder)
    now = 0
    encoder = StreamEncoder(Compression(codec="h264"), pytest.fail, lambda: now)
    for number in range(1, 41):
        now += 1_000_000_000 // 30
        parts, data = payload(picture(number))
        coded = encoder.encode(number, parts, data)
        assert coded is not None
        sent = coded[:-20] if number == 5 else coded
        made.stream.data(frames.read_data(coded_frame(number, sent, parts)))
    wait_until(lambda: made.stream.stored == 40, what="all pictures")
    assert made.forwarder.stored == [1, 2, 3, 4, *range(32, 41)]
    assert made.stream.lost == 27
    assert len(made.notes) == 2, "of the damaged one, and of those that need it"
