"""Codecs between machines: what is restored, what crosses as it is, and what is refused."""

from __future__ import annotations

import contextlib

import numpy as np
import pyarrow as pa
import pytest
from daemon.link.codecs.pictures import HEIGHT, WIDTH, close, number_in, payload, picture
from hypothesis import given, settings, strategies as st

from dora_config.dataflow.compression import CodecName, Compression
from dora_daemon.link.codecs.coded import CODED_AT, NotDecoded
from dora_daemon.link.codecs.decoding import NoReference, StreamDecoder
from dora_daemon.link.codecs.encoding import StreamEncoder
from dora_node_api.data import arrow

SECOND = 1_000_000_000


class Camera:
    """An encoder with a clock of its own, at 30 Hz."""

    def __init__(self, codec: CodecName, **options: int) -> None:
        self.notes: list[str] = []
        self.now = 0
        self.sequence = 0
        self.encoder = StreamEncoder(
            Compression(codec=codec, **options), self.notes.append, lambda: self.now
        )

    def send(self, pixels: np.ndarray, encoding: str = "rgb8") -> bytes:
        self.sequence += 1
        self.now += SECOND // 30
        coded = self.encoder.encode(self.sequence, *payload(pixels, encoding))
        assert coded is not None, self.notes
        return coded


def restore(decoder: StreamDecoder, sequence: int, coded: bytes) -> np.ndarray:
    view = memoryview(coded)
    target = bytearray(decoder.size_of(view))
    decoder.decode(sequence, view, memoryview(target))
    return np.frombuffer(target, np.uint8)


@pytest.mark.parametrize("codec", ["jpeg", "h264"])
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8"])
@pytest.mark.parametrize(("width", "height"), [(WIDTH, HEIGHT), (321, 239)])
def test_pictures_arrive_as_they_were(
    codec: CodecName, encoding: str, width: int, height: int
) -> None:
    camera, decoder = Camera(codec), StreamDecoder()
    channels = 1 if encoding == "mono8" else 3
    for number in range(4):
        sent = picture(number, width=width, height=height, channels=channels)
        coded = camera.send(sent, encoding)
        assert len(coded) < sent.nbytes / 4
        got = restore(decoder, camera.sequence, coded).reshape(sent.shape)
        assert close(got, sent)


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_any_array_survives_a_lossless_codec(codec: CodecName) -> None:
    values = pa.array([1.5, None, 2.5] * 40_000)
    made = arrow.encode(values, {})
    memory = bytearray(made.total)
    made.write_into(memory)
    data = memoryview(memory)[made.data_offset :]
    encoder = StreamEncoder(Compression(codec=codec), pytest.fail)
    coded = encoder.encode(1, made, data)
    assert coded is not None
    assert len(coded) < len(data) / 4
    assert restore(StreamDecoder(), 1, coded).tobytes() == data


def test_what_does_not_get_smaller_crosses_as_it_is() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (100, 100, 3), np.uint8)
    encoder = StreamEncoder(Compression(codec="lz4"), pytest.fail)
    assert encoder.encode(1, *payload(noise)) is None


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (payload(picture(1), "yuyv"), "its `encoding` is 'yuyv', not one of rgb8, bgr8, mono8"),
        (payload(picture(1), width=None), "its metadata has no `width` and `height`"),
        (payload(picture(1), width=300), "bytes are not 300 x 240 pixels of rgb8"),
        (payload(picture(1).astype(np.float32)), "it is not an array of UInt8 without nulls"),
    ],
)  # fmt: skip
def test_what_is_no_picture_crosses_as_it_is_and_is_named_once(message, reason) -> None:  # type: ignore[no-untyped-def]
    notes: list[str] = []
    encoder = StreamEncoder(Compression(codec="jpeg"), notes.append)
    assert encoder.encode(1, *message) is None
    assert encoder.encode(2, *message) is None
    assert len(notes) == 1
    assert reason in notes[0]
    assert encoder.encode(3, *payload(picture(1))) is not None


def test_a_lost_frame_of_h264_is_never_shown_wrongly() -> None:
    camera, decoder = Camera("h264"), StreamDecoder()
    shown: list[int] = []
    for number in range(90):
        coded = camera.send(picture(number))
        if number in (10, 47):
            continue  # lost between the machines
        try:
            got = restore(decoder, camera.sequence, coded).reshape(HEIGHT, WIDTH, 3)
        except NoReference:
            continue
        assert number_in(got) == number % 10
        assert close(got, picture(number))
        shown.append(number)
    missing = [number for number in range(90) if number not in shown]
    assert missing[0] == 10
    assert len(missing) <= 2 * 31
    assert shown[-1] == 89


def test_a_new_decoder_waits_for_a_key_frame_at_most_a_second() -> None:
    camera = Camera("h264")
    for number in range(10):
        camera.send(picture(number))
    decoder, waited = StreamDecoder(), 0
    while True:
        coded = camera.send(picture(waited))
        try:
            restore(decoder, camera.sequence, coded)
            break
        except NoReference:
            waited += 1
    assert waited <= 30


def test_a_new_round_begins_with_a_key_frame() -> None:
    camera = Camera("h264")
    camera.send(picture(1))
    camera.send(picture(2))
    camera.encoder.restart()
    coded = camera.send(picture(3))
    got = restore(StreamDecoder(), camera.sequence, coded).reshape(HEIGHT, WIDTH, 3)
    assert close(got, picture(3))


@pytest.mark.parametrize("codec", ["jpeg", "h264"])
def test_a_frame_of_another_size_in_the_midst(codec: CodecName) -> None:
    camera, decoder = Camera(codec), StreamDecoder()
    for number, width in enumerate((320, 320, 160, 160, 320)):
        sent = picture(number, width=width)
        got = restore(decoder, camera.sequence + 1, camera.send(sent))
        assert close(got.reshape(sent.shape), sent)


CODED = {codec: Camera(codec).send(picture(1)) for codec in ("jpeg", "h264", "lz4", "zstd")}


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(CODED)),
    st.integers(0, 1 << 20),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=4),
)
def test_damaged_bytes_are_refused_or_decoded_and_nothing_else(
    codec: str, cut: int, changes: list[tuple[int, int]]
) -> None:
    damaged = bytearray(CODED[codec])
    for place, value in changes:
        damaged[place % len(damaged)] = value
    del damaged[cut % (2 * len(damaged)) :]
    decoder = StreamDecoder()
    with contextlib.suppress(NotDecoded):
        restore(decoder, 1, bytes(damaged))
    # the next picture is right all the same
    got = restore(decoder, 2, CODED[codec]).reshape(HEIGHT, WIDTH, 3)
    assert close(got, picture(1))


@pytest.mark.parametrize("codec", sorted(CODED))
def test_a_truncated_picture_is_refused(codec: str) -> None:
    whole = CODED[codec]
    with pytest.raises(NotDecoded):
        restore(StreamDecoder(), 1, whole[: CODED_AT + (len(whole) - CODED_AT) // 2])
