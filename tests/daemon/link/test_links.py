"""Two real link processes over TLS on loopback: what goes through, and in which order."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from daemon.link.machine import Machine, connected, connected_stream, deliveries, introduce
from support.queues import message, number_of
from support.waiting import wait_until

from dora_config.protocol.links import LINK_PROTOCOL, LINK_VERSION
from dora_daemon import __version__
from dora_daemon.link.protocol.messages import IncomingStream, PeerChanged, SetIncoming
from dora_daemon.link.protocol.status import other_security
from dora_daemon.link.streams.sender import MIN_WINDOW
from dora_node_api.data import arrow
from dora_node_api.transport.shared.layout import FLAG_FLUSH, FLAG_PROTECTED, RecordKind

pytestmark = pytest.mark.integration

Make = Callable[..., Machine]

ARRAYS = (
    pa.array([1, None, 3], pa.int64()),
    pa.array([True, False, None] * 11)[3:],
    pa.array(["a", None, "longer than that"] * 5)[2:9],
    pa.array([[1, 2], [], None, [3]]),
    pa.array([{"x": 1.5, "y": "b"}, None]),
    pa.array(["x", "y", "x"]).dictionary_encode(),
    pa.array([], pa.float32()),
    pa.nulls(4),
    pa.array([b"1234", b"abcd"], pa.binary(4)),
    pa.array(np.arange(300_000, dtype=np.float32)),
)


def test_messages_go_through_in_order(make: Make) -> None:
    a, b = make("a"), make("b")
    out = a.outgoing("camera/image", "b", policy="backpressure")
    into = b.incoming("camera/image", "a", "plot/picture", policy="backpressure")
    introduce(a, b)
    connected(a, b)
    sender, coming = a.sender(out), deliveries(b.receiver(into))
    for number in range(200):
        sender.send("image", arrow.encode(message(number, 100), {"number": number}))
        delivery = next(coming)
        assert number_of(delivery.data) == number
        assert delivery.metadata["number"] == number
    assert a.wait_for_peer(machine="b", state="connected").endpoint == b.endpoints[0]
    wait_until(lambda: a.wait_for_peer().rtt_us is not None, what="a round-trip time")
    report = a.wait_for_peer()
    assert report.rtt_us is not None
    assert report.clock_offset_us is not None
    # Both have one clock: what is seen of it is at most what the answer took, and our own reading.
    assert abs(report.clock_offset_us) < report.rtt_us / 2 + 50_000


def test_every_kind_of_array_and_its_metadata_and_time(make: Make) -> None:
    a, b, out, into = connected_stream(make)
    sender, coming = a.sender(out), deliveries(b.receiver(into))
    metadata = {"text": "ä", "list": [1, 2], "flag": True, "real": 0.5}
    for array in ARRAYS:
        payload = arrow.encode(array, metadata)
        payload.timestamp_ns = 1_700_000_000_123_456_000
        sender.send("o", payload)
        delivery = next(coming)
        assert delivery.value.equals(array)
        assert delivery.value.type == array.type
        assert delivery.timestamp_ns == 1_700_000_000_123_456_000
        assert {k: v for k, v in delivery.metadata.items() if k != "timestamp"} == metadata


def test_large_messages_with_small_ones_between(make: Make) -> None:
    a, b, out, into = connected_stream(make, policy="backpressure", bound=4)
    sender, coming = a.sender(out), deliveries(b.receiver(into), seconds=60)
    sizes = (40 << 20, 100, 3 << 20, 200_000, 100, 1 << 20, (1 << 20) + 1, 64, 524_288, 70_000)
    data = [
        np.frombuffer(np.random.default_rng(n).bytes(size), np.uint8)
        for n, size in enumerate(sizes)
    ]

    def send() -> None:
        for array in data:
            sender.send("o", arrow.encode(array))

    thread = threading.Thread(target=send)
    thread.start()
    for array in data:
        assert np.array_equal(next(coming).value.to_numpy(), array)
    thread.join()


def test_fan_out_crosses_once_and_each_consumer_has_its_own_policy(make: Make) -> None:
    a, b = make("a"), make("b")
    out = a.outgoing("n/o", "b", policy="backpressure", bound=50)
    queues = [b.incoming("n/o", "a", f"m{i}/i", policy="backpressure", bound=50) for i in range(3)]
    slow = b.incoming("n/o", "a", "slow/i", bound=3)
    introduce(a, b)
    connected(a, b)
    sender = a.sender(out)
    receivers = [deliveries(b.receiver(kept)) for kept in queues]
    for number in range(300):
        sender.send("o", arrow.encode(message(number, 50)))
        for coming in receivers:
            assert number_of(next(coming).data) == number
    # The last message is in the queue of the slow one, too, once it is counted.
    for machine in (a, b):
        wait_until(lambda m=machine: m.count("n/o", "messages") == 300, what="the counters")  # type: ignore[misc]
    late = deliveries(b.receiver(slow))
    assert [number_of(next(late).data) for _ in range(3)] == [297, 298, 299]


def test_a_remote_consumer_that_stops_reading_blocks_the_producer(make: Make) -> None:
    a, b = make("a"), make("b")
    out = a.outgoing("n/o", "b", policy="backpressure", bound=5)
    into = b.incoming("n/o", "a", "m/i", policy="backpressure", bound=5)
    other_out = a.outgoing("n/other", "b")
    other = b.incoming("n/other", "a", "m/j")
    introduce(a, b)
    connected(a, b)
    sender = a.sender(out, other_out)
    sent = [0]

    def send() -> None:
        for number in range(500):
            sender.send("o", arrow.encode(message(number, 5_000)))
            sent[0] = number + 1

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    # Both queues are full, and so is the window between them.
    most = 5 + MIN_WINDOW + 5
    wait_until(lambda: sent[0] == most, what=lambda: f"the producer to wait, not at {sent[0]}")
    # Another stream of the same producer is not blocked.
    coming = deliveries(b.receiver(other))
    for number in range(50):
        sender.send("other", arrow.encode(message(number, 5_000)))
        assert number_of(next(coming).data) == number
    assert sent[0] == most
    received = deliveries(b.receiver(into))
    for number in range(500):
        assert number_of(next(received).data) == number
    thread.join()


def test_a_consumer_that_starts_late_receives_the_newest(make: Make) -> None:
    a, b, out, into = connected_stream(make, bound=10)
    sender = a.sender(out)
    for number in range(2000):
        sender.send("o", arrow.encode(message(number, 2_000)))
    wait_until(lambda: out.ends.depth() == 0, what="the link to take all that is left")
    # Reported counts are up to a second old.
    taken = out.keeper.statistics().received
    wait_until(lambda: b.count("n/o", "messages") >= taken, what=lambda: f"all {taken}")
    coming = deliveries(b.receiver(into), seconds=1)
    numbers = [number_of(delivery.data) for delivery in coming]
    assert numbers[-1] == 1999
    assert len(numbers) <= 10
    assert numbers == sorted(numbers)


def test_protected_messages_are_kept_and_a_flush_empties(make: Make) -> None:
    a, b, out, into = connected_stream(make, bound=5)
    sender = a.sender(out)
    for number in range(20):
        sender.send("o", arrow.encode(message(number, 10)), FLAG_PROTECTED)
    for number in range(20, 200):
        sender.send("o", arrow.encode(message(number, 10)))
    sender.send("o", arrow.encode(message(200, 10)), FLAG_FLUSH)
    coming = deliveries(b.receiver(into))
    wait_until(lambda: b.count("n/o", "messages") >= 21 and out.ends.depth() == 0, what="all")
    wait_until(lambda: a.count("n/o", "waiting") == 0, what="all of it")
    numbers = [number_of(next(coming).data) for _ in range(21)]
    assert numbers == [*range(20), 200]


def test_lifecycle_events_follow_the_last_message(make: Make) -> None:
    a, b, out, into = connected_stream(make, policy="backpressure", bound=100)
    sender = a.sender(out)
    for number in range(50):
        sender.send("o", arrow.encode(message(number, 10)))
    sender.send("o", arrow.encode(message(50, 300_000)))
    out.keeper.announce_restarted()
    out.keeper.announce_failed("it ended with exit code 3")
    out.keeper.announce_closed()
    coming = deliveries(b.receiver(into))
    assert [number_of(next(coming).data) for _ in range(51)] == list(range(51))
    kinds = [next(coming) for _ in range(3)]
    assert [k.kind for k in kinds] == [
        RecordKind.NODE_RESTARTED, RecordKind.NODE_FAILED, RecordKind.CLOSED,
    ]  # fmt: skip
    assert kinds[1].error == "it ended with exit code 3"
    wait_until(
        lambda: b.events() == [("n/o", "restarted"), ("n/o", "failed"), ("n/o", "closed")],
        what="the events",
    )


def test_a_link_sends_waiting_messages_before_it_ends(make: Make) -> None:
    a, b = make("a"), make("b")
    out = a.outgoing("n/o", "b", policy="backpressure", bound=1000)
    into = b.incoming("n/o", "a", "m/i", policy="backpressure", bound=1000)
    back = b.outgoing("m/back", "a", policy="backpressure", bound=5)
    a.incoming("m/back", "b", "n/i", policy="backpressure", bound=5)
    introduce(a, b)
    connected(a, b)
    sender, answers = a.sender(out), b.sender(back)
    for number in range(500):
        sender.send("o", arrow.encode(message(number, 3_000)))
    out.keeper.announce_closed()
    assert a.finish().undelivered == 0
    coming = deliveries(b.receiver(into))
    assert [number_of(next(coming).data) for _ in range(500)] == list(range(500))
    assert next(coming).kind is RecordKind.CLOSED
    # Producers do not wait for a part that has ended.
    b.wait_for_peer(machine="a", state="left")
    for number in range(500):
        answers.send("back", arrow.encode(message(number, 100)))


def test_a_producer_does_not_wait_for_consumers_that_are_gone(make: Make) -> None:
    a, b = make("a"), make("b")
    out = a.outgoing("n/o", "b", policy="backpressure", bound=5)
    b.incoming("n/o", "a", "m/i", policy="backpressure", bound=5)
    introduce(a, b)
    connected(a, b)
    sender = a.sender(out)
    for number in range(20):
        sender.send("o", arrow.encode(message(number, 100)))
    b.send(SetIncoming(streams=(IncomingStream(machine="a", node="n", output="o"),)))
    for number in range(500):
        sender.send("o", arrow.encode(message(number, 100)))
    wait_until(lambda: out.ends.depth() == 0, what="the queue to be empty")


def test_three_machines(make: Make) -> None:
    machines = [make(name) for name in "abc"]
    streams = []
    for origin in machines:
        for target in machines:
            if target is not origin:
                source = f"n{origin.name}/to-{target.name}"
                out = origin.outgoing(source, target.name, policy="backpressure")
                into = target.incoming(
                    source, origin.name, f"m/{origin.name}", policy="backpressure"
                )
                streams.append((origin, target, source, out, into))
    introduce(*machines)
    connected(*machines)
    for origin, target, source, out, into in streams:
        sender, coming = origin.sender(out), deliveries(target.receiver(into))
        for number in range(20):
            sender.send(source.partition("/")[2], arrow.encode(message(number, 1000)))
            assert number_of(next(coming).data) == number


def test_the_lists_must_agree_before_a_peer_counts_as_connected(make: Make) -> None:
    a, b = make("a"), make("b")
    a.outgoing("n/o", "b")
    introduce(a, b)
    report = a.wait_for_peer(machine="b", reason="n/o is not expected there")
    assert report.state == "connecting"


def test_an_unreachable_peer_is_reported_with_the_reason(make: Make) -> None:
    a, b = make("a"), make("b")
    a.outgoing("n/o", "b")
    a.start_link()
    a.meet(b, endpoints=("127.0.0.1:1",))
    wait_until(lambda: "refused" in (a.wait_for_peer(machine="b").reason or ""), what="a reason")
    assert a.state_of("b") == "connecting"


def test_each_link_reports_where_the_other_listens(make: Make) -> None:
    """The link that was dialed, too."""
    a, b = make("a"), make("b")
    introduce(a, b)
    connected(a, b)
    for here, there in ((a, b), (b, a)):
        report = here.wait_for_peer(machine=there.name, state="connected")
        assert (report.endpoint,) == there.endpoints


def test_a_link_listens_before_the_name_of_a_peer_is_known(make: Make) -> None:
    """The coordinator was restarted, and the daemon of the peer has not connected yet."""
    a, b = make("a"), make("b")
    a.outgoing("n/o", "b")
    b.incoming("n/o", "a", "m/i")
    a.names_known = b.names_known = False
    introduce(a, b)
    connected(a, b)


def test_messages_go_through_without_tls(make: Make) -> None:
    a, b = make("a", plain=True), make("b", plain=True)
    out = a.outgoing("n/o", "b")
    into = b.incoming("n/o", "a", "m/i")
    introduce(a, b)
    connected(a, b)
    sender, coming = a.sender(out), deliveries(b.receiver(into))
    for number, size in enumerate((8, 64 * 1024, 3 << 20)):
        sender.send("o", arrow.encode(message(number, size)))
        assert number_of(next(coming).data) == number


def test_a_link_with_tls_and_one_without_do_not_connect(make: Make) -> None:
    a, b = make("a"), make("b", plain=True)
    a.outgoing("n/o", "b")
    b.incoming("n/o", "a", "m/i")
    introduce(a, b)
    for here, there, theirs, ours in ((a, b, "plain", "tls"), (b, a, "tls", "plain")):
        security = other_security(there.name, plain=there.plain)
        report = here.wait_for_peer(machine=there.name, reason=security)
        assert report.state == "connecting"
        assert f"uses links: {theirs}, this machine {ours}" in security


@pytest.mark.parametrize("at", ["first", "second"])
def test_links_of_neighbouring_minor_versions_work_together(make: Make, at: str) -> None:
    major, minor = LINK_VERSION
    newer = {"version": (major, minor + 1)}
    a = make("a", **(newer if at == "first" else {}))
    b = make("b", **(newer if at == "second" else {}))
    out = a.outgoing("n/o", "b")
    into = b.incoming("n/o", "a", "m/i")
    introduce(a, b)
    connected(a, b)
    sender, coming = a.sender(out), deliveries(b.receiver(into))
    sender.send("o", arrow.encode(message(7, 100)))
    assert number_of(next(coming).data) == 7


@pytest.mark.parametrize(
    "version", [(LINK_VERSION[0], LINK_VERSION[1] + 2), (LINK_VERSION[0] + 1, 0)]
)
def test_links_of_distant_versions_name_both_and_the_command(
    make: Make, version: tuple[int, int]
) -> None:
    a, b = make("a"), make("b", version=version)
    a.outgoing("n/o", "b")
    b.incoming("n/o", "a", "m/i")
    introduce(a, b)
    ours, theirs = ".".join(map(str, LINK_VERSION)), ".".join(map(str, version))
    for here, there, runs, this in (
        (a, b, f"dora 9.9 (link protocol {theirs})", f"{__version__} ({ours})"),
        (b, a, f"dora {__version__} (link protocol {ours})", f"9.9 ({theirs})"),
    ):
        reason = incompatibility_reported(here, there)
        assert f'"{there.name}" runs this dataflow with {runs}, this machine with {this}' in reason
        assert reason.endswith("then run `dora restart 0198-flow`")
        assert here.state_of(there.name) == "lost"


def incompatibility_reported(here: Machine, there: Machine) -> str:
    """Wait until a machine reports that the link of another has an incompatible version."""

    def found() -> str | None:
        reports = [one.peer for one in here.received if isinstance(one, PeerChanged)]
        reasons = [one.reason or "" for one in reports if one.machine == there.name]
        return next((one for one in reasons if LINK_PROTOCOL in one), None)

    reason = wait_until(found, what="both versions in the report")
    assert reason is not None
    return reason
