"""Messages between a runner and its link: their bytes, unknown and malformed ones."""

from __future__ import annotations

import pytest

from dora_config.protocol.links import PeerEndpoint, PeerReport
from dora_daemon.link.protocol import messages
from dora_daemon.link.protocol.messages import (
    Configure,
    Failed,
    Finish,
    Finished,
    IncomingStream,
    LineBuffer,
    Listening,
    Note,
    Outgoing,
    PeerChanged,
    SetIncoming,
    SetOutgoing,
    SetPeers,
    SourceEvent,
    StreamCount,
    StreamCounts,
    ToLink,
    ToRunner,
    decode_for_link,
    decode_for_runner,
    encode,
)

TO_LINK: list[tuple[ToLink, str]] = [
    (
        Configure(
            dataflow_id="d", network="n", machine="m", run_id="r", listen_host="h", first_port=1,
            last_port=2, credentials=None,
        ),
        '{"kind":"configure","version":1,"dataflow_id":"d","name":"","network":"n","machine":"m",'
        '"run_id":"r","listen_host":"h","first_port":1,"last_port":2,"port":null,'
        '"credentials":null,"plain":false,"names":{},"window_bytes":33554432,"window_messages":256}',
    ),
    (
        SetPeers(peers=(PeerEndpoint(machine="m", run_id="r", endpoints=("h:1",)),)),
        '{"kind":"set_peers","peers":[{"machine":"m","run_id":"r","endpoints":["h:1"],"plain":false,'
        '"name":""}]}',
    ),
    (
        SetOutgoing(streams=(Outgoing(machine="m", node="n", output="o", queue=3),)),
        '{"kind":"set_outgoing","streams":[{"machine":"m","node":"n","output":"o","queue":3,'
        '"compress":null}]}',
    ),
    (
        SetIncoming(streams=(IncomingStream(machine="m", node="n", output="o", queues=(3,)),)),
        '{"kind":"set_incoming","streams":[{"machine":"m","node":"n","output":"o","queues":[3]}]}',
    ),
    (Finish(seconds=1.5), '{"kind":"finish","seconds":1.5}'),
]  # fmt: skip
TO_RUNNER: list[tuple[ToRunner, str]] = [
    (Listening(endpoints=("h:1",)), '{"kind":"listening","endpoints":["h:1"]}'),
    (Failed(reason="x"), '{"kind":"failed","reason":"x"}'),
    (
        PeerChanged(peer=PeerReport(machine="m", state="lost", run_id="r")),
        '{"kind":"peer_changed","peer":{"machine":"m","run_id":"r","state":"lost","reason":null,'
        '"endpoint":null,"slow":false,"rtt_us":null,"clock_offset_us":null}}',
    ),
    (
        SourceEvent(machine="m", node="n", output="o", event="closed"),
        '{"kind":"source_event","machine":"m","node":"n","output":"o","event":"closed","error":""}',
    ),
    (
        StreamCounts(streams=(StreamCount(machine="m", node="n", output="o", direction="in"),)),
        '{"kind":"stream_counts","streams":[{"machine":"m","node":"n","output":"o",'
        '"direction":"in","messages":0,"bytes":0,"lost":0,"waiting":0,"resent":0,"invalid":0,'
        '"wire_bytes":0,"uncompressed":""}]}',
    ),
    (Note(level="warn", message="x"), '{"kind":"note","level":"warn","message":"x"}'),
    (Finished(undelivered=2), '{"kind":"finished","undelivered":2}'),
]


def kind_of(sample: object) -> str:
    return type(sample).__name__ if not isinstance(sample, str) else "json"


@pytest.mark.parametrize(("message", "golden"), TO_LINK, ids=kind_of)
def test_the_bytes_of_a_message_to_the_link(message: ToLink, golden: str) -> None:
    """Other changes than further optional fields need another `messages.VERSION`."""
    assert messages.VERSION == 1
    assert encode(message) == golden.encode() + b"\n"
    assert decode_for_link(golden.encode()) == message


@pytest.mark.parametrize(("message", "golden"), TO_RUNNER, ids=kind_of)
def test_the_bytes_of_a_message_to_the_runner(message: ToRunner, golden: str) -> None:
    """Other changes than further optional fields need another `messages.VERSION`."""
    assert encode(message) == golden.encode() + b"\n"
    assert decode_for_runner(golden.encode()) == message


@pytest.mark.parametrize("line", [b'{"kind":"later"}', b'{"kind":"finish"}'])
def test_other_messages_are_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"kind|seconds"):
        decode_for_link(line)


def test_lines_are_split_wherever_they_are_cut() -> None:
    lines = LineBuffer()
    assert lines.feed(b"one\ntw") == [b"one"]
    assert lines.feed(b"o\n\nthree\n") == [b"two", b"three"]
    with pytest.raises(ValueError, match="more than"):
        lines.feed(b"x" * (messages.MAX_LINE + 1))
