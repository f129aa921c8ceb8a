"""Two real link processes with `compress:`: pictures over cuts and restarts, and small messages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from daemon.link.codecs.pictures import HEIGHT, WIDTH, close, number_in, picture
from daemon.link.machine import Machine, connected, deliveries, introduce
from support.cut import CuttableWire
from support.waiting import let_last, wait_until

from dora_config.dataflow.compression import CodecName, Compression
from dora_daemon.link.protocol.messages import Note, StreamCounts
from dora_node_api.data import arrow
from dora_node_api.transport.consumer.delivery import Delivery
from dora_node_api.transport.producer.sending import Sender

pytestmark = pytest.mark.integration

Make = Callable[..., Machine]


def streams(
    make: Make, codec: CodecName, policy: str = "backpressure"
) -> tuple[Machine, Machine, Sender, Iterator[Delivery]]:
    a, b = make("a"), make("b")
    out = a.outgoing("camera/image", "b", policy=policy, compress=Compression(codec=codec))
    into = b.incoming("camera/image", "a", "plot/picture", policy=policy)
    introduce(a, b)
    connected(a, b)
    return a, b, a.sender(out), deliveries(b.receiver(into))


def show(sender: Sender, number: int, **metadata: object) -> None:
    about = {"width": WIDTH, "height": HEIGHT, "encoding": "rgb8", "number": number, **metadata}
    sender.send("image", arrow.encode(picture(number).ravel(), about))


def notes(*machines: Machine) -> list[str]:
    return [m.message for one in machines for m in one.received if isinstance(m, Note)]


def reason(machine: Machine) -> str:
    """Return why messages of the camera crossed as they are, by the last report."""
    reports = [m for m in machine.received if isinstance(m, StreamCounts)]
    counts = [count for report in reports for count in report.streams if count.node == "camera"]
    return counts[-1].uncompressed if counts else ""


def pixels(delivery: Delivery) -> np.ndarray:
    return np.array(delivery.value).reshape(HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("codec", ["jpeg", "h264", "zstd"])
def test_a_reader_gets_the_picture_that_was_sent(make: Make, codec: CodecName) -> None:
    a, b, sender, coming = streams(make, codec)
    for number in range(30):
        show(sender, number)
        delivery = next(coming)
        assert delivery.metadata["number"] == number
        assert close(pixels(delivery), picture(number))
        assert number_in(pixels(delivery)) == number % 10
    wait_until(lambda: a.count("camera/image", "messages") == 30, what="counters of all pictures")
    raw = a.count("camera/image", "bytes")
    assert raw >= 30 * WIDTH * HEIGHT * 3
    assert a.count("camera/image", "wire_bytes") < (raw if codec == "zstd" else raw / 4)
    assert notes(a, b) == []


@pytest.mark.parametrize("codec", ["jpeg", "h264"])
@pytest.mark.parametrize("killed", ["sender", "receiver"])
def test_no_wrong_picture_when_a_link_is_killed(make: Make, codec: CodecName, killed: str) -> None:
    a, b, sender, coming = streams(make, codec, policy="drop_oldest")
    for number in range(20):
        show(sender, number)
        check(next(coming))
    victim, other = (a, b) if killed == "sender" else (b, a)
    victim.kill_link()
    for number in range(20, 25):
        show(sender, number)
    victim.start_link()
    other.meet(victim)
    victim.meet(other)
    connected(a, b)
    number, seen = 25, 0
    begun = time.monotonic()
    while seen < 20:
        show(sender, number)
        seen = check(next(coming)) - 20
        number += 1
    assert time.monotonic() - begun < 10


def check(delivery: Delivery) -> int:
    number = int(delivery.metadata["number"])
    assert close(pixels(delivery), picture(number))
    assert number_in(pixels(delivery)) == number % 10
    return number


@pytest.mark.parametrize("codec", ["jpeg", "h264"])
def test_the_newest_picture_arrives_within_a_second_after_a_cut(
    make: Make, codec: CodecName
) -> None:
    a, b = make("a"), make("b")
    out = a.outgoing(
        "camera/image", "b", policy="drop_oldest", bound=1, compress=Compression(codec=codec)
    )
    into = b.incoming("camera/image", "a", "plot/picture", policy="drop_oldest", bound=1)
    introduce(a, b)
    cable = CuttableWire(int(b.endpoints[0].rpartition(":")[2]))
    try:
        a.meet(b, endpoints=(f"127.0.0.1:{cable.port}",))
        b.meet(a, endpoints=("127.0.0.1:1",))
        connected(a, b)
        sender, coming = a.sender(out), deliveries(b.receiver(into))
        for number in range(10):
            show(sender, number)
            check(next(coming))
        cable.cut()
        for number in range(10, 70):
            show(sender, number)
            let_last(1 / 30)
        cable.heal()
        begun, number, newest = time.monotonic(), 70, 0
        while newest < 70:
            show(sender, number)
            number += 1
            newest = check(next(coming))
        assert time.monotonic() - begun < 1
    finally:
        cable.close()


def test_pictures_of_a_wrong_or_another_size_cost_one_line(make: Make) -> None:
    a, b, sender, coming = streams(make, "jpeg")
    for number, width in enumerate((WIDTH, WIDTH // 2, WIDTH)):
        sent = picture(number, width=width)
        about = {"width": width, "height": HEIGHT, "encoding": "rgb8"}
        sender.send("image", arrow.encode(sent.ravel(), about))
        assert close(np.array(next(coming).value).reshape(sent.shape), sent)
    for number in range(3):
        show(sender, number, width=WIDTH + 1)
        assert np.array_equal(pixels(next(coming)), picture(number)), "as it was sent"
    wait_until(lambda: reason(a), what="the reason in the counters")
    show(sender, 4)
    check(next(coming))
    wait_until(lambda: not reason(a), what="no reason any more")
    (note,) = notes(a, b)
    assert note.startswith("camera/image: messages cross uncompressed (jpeg): ")
