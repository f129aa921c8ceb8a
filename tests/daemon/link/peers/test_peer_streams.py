"""Streams of one peer: their rounds and frames, without queues and threads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import pytest

from dora_daemon.link.peers.peer_streams import PeerStreams
from dora_daemon.link.protocol import frames
from dora_daemon.link.protocol.handshake import LinkHandshake
from dora_daemon.link.protocol.hello import EnteringStream, LeavingStream, LinkHello
from dora_daemon.link.protocol.windows import SendWindow
from dora_daemon.link.streams.receiver import StreamReceiver
from dora_daemon.link.streams.sender import StreamSender

SOURCE = ("n", "o")
LEAVING = LeavingStream(number=4, node="n", output="o", given_up=0)
ENTERING = EnteringStream(node="n", output="o", run_id="a-1", accepted=0, stored=0, listening=True)


class Outgoing:
    """Keeps the calls of a stream that leaves."""

    number = 2
    waiting = 0
    sends_large = False

    def __init__(self) -> None:
        self.calls: list[object] = []
        self.window = SendWindow[str](10, 1000)

    def resume(self, entering: EnteringStream) -> None:
        self.calls.append(entering)

    def pause(self) -> None:
        self.calls.append("pause")

    def discard(self) -> None:
        self.calls.append("discard")

    def acknowledged(self, sequence: int, _now: int, _round_trip_ns: int) -> None:
        self.calls.append(sequence)


class Incoming:
    """Keeps the rounds and messages of a stream that enters."""

    number = 0
    stored = 5

    def __init__(self) -> None:
        self.rounds: list[str] = []
        self.received: list[bytes] = []

    def begin_round(self, run_id: str, leaving: LeavingStream) -> None:
        self.number = leaving.number
        self.rounds.append(run_id)

    def images(self, frame: bytes, images: Iterable[frames.Image], _now: int) -> None:
        self.received += [frame[start:end] for *_, start, end in images]


class Streams:
    """One stream in each direction, and the peer's handshake."""

    def __init__(self) -> None:
        self.going, self.coming = Outgoing(), Incoming()
        self.streams = PeerStreams()
        self.streams.set(
            {SOURCE: cast(StreamSender, self.going)}, {SOURCE: cast(StreamReceiver, self.coming)}
        )
        self.known = LinkHandshake(3)

    def receive_hello(self, *, count: int = 1, entering: EnteringStream = ENTERING) -> bool:
        theirs = LinkHello(
            machine="b", run_id="b-1", round=1, seen_round=self.known.round, count=count,
            leaving=(LEAVING,), entering=(entering,),
        )  # fmt: skip
        self.known.receive(7, 3, theirs, 1)
        return self.streams.begin_rounds(self.known, "a-1")


@pytest.fixture
def both() -> Streams:
    return Streams()


def test_streams_begin_once_in_a_round(both: Streams) -> None:
    assert not both.streams.begin_rounds(both.known, "a-1"), "before the peer's hello"
    assert both.receive_hello()
    assert both.coming.rounds == ["b-1"]
    assert both.going.calls == [ENTERING]
    assert not both.receive_hello(count=2)
    assert both.coming.rounds == ["b-1"]
    assert both.going.calls == [ENTERING]


def test_a_stream_that_the_peer_does_not_expect_pauses(both: Streams) -> None:
    both.receive_hello(entering=ENTERING.model_copy(update={"run_id": "a-0"}))
    assert both.going.calls == ["pause"]


@pytest.mark.parametrize("pause", [True, False])
def test_an_interrupted_stream_resumes_with_the_next_hello(both: Streams, *, pause: bool) -> None:
    both.receive_hello()
    both.streams.interrupt(pause=pause)
    both.receive_hello(count=2)
    assert both.going.calls == [ENTERING, *(["pause"] if pause else []), ENTERING]


def test_streams_begin_again_with_another_run_of_the_peer(both: Streams) -> None:
    both.receive_hello()
    both.streams.forget_run()
    assert both.receive_hello(count=2)
    assert both.coming.rounds == ["b-1", "b-1"]


def test_frames_reach_the_stream_of_their_number(both: Streams) -> None:
    both.receive_hello()
    frame = frames.images_head(7, 3, (0, 0))
    for number, body in ((4, b"ours"), (9, b"of a removed stream")):
        frame += frames.image_head(number, 2, 1, 0, 0, len(body)) + body
    both.streams.images(frame, 1)
    assert both.coming.received == [b"ours"]
    both.streams.acknowledged([(2, 11), (9, 12)], 1, 0)
    assert both.going.calls == [ENTERING, 11]
    assert both.streams.stored() == [(4, 5)]
    both.streams.forget_numbers()
    both.streams.images(frame, 1)
    assert both.coming.received == [b"ours"]


def test_messages_without_a_reader_are_discarded(both: Streams) -> None:
    both.streams.discard()
    assert both.going.calls == ["discard"]


def test_small_messages_in_flight_are_counted(both: Streams) -> None:
    assert not both.streams.waiting
    both.going.waiting = 1
    both.going.window.add(1, 30, "message")
    assert both.streams.waiting
    assert both.streams.small_unacknowledged() == 30
    both.going.sends_large = True
    assert both.streams.small_unacknowledged() == 0
