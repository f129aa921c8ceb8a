"""Hello of a link: its bytes and the comparison of two."""

from __future__ import annotations

from dora_daemon.link.protocol.hello import (
    EnteringStream,
    LeavingStream,
    LinkHello,
    decode,
    disagreement,
    encode,
)


def test_lists_that_differ_are_named() -> None:
    leaving = LeavingStream(number=1, node="n", output="o", given_up=0)
    entering = EnteringStream(node="n", output="o", run_id="", accepted=0, stored=0, listening=True)
    a = LinkHello(machine="a", run_id="1", round=1, leaving=(leaving,))
    b = LinkHello(machine="b", run_id="1", round=1, entering=(entering,))
    assert disagreement(a, b) is None
    assert disagreement(b, a) is None
    other = b.model_copy(update={"entering": ()})
    assert disagreement(a, other) == "n/o is not expected there"
    assert disagreement(other, a) == "n/o is not expected here"
    assert disagreement(a.model_copy(update={"leaving": ()}), b) == "n/o is not sent from here"


def test_the_bytes_of_a_hello() -> None:
    """They change only together with `LINK_VERSION`."""
    hello = LinkHello(
        release="0.1.0", machine="a", run_id="a-1", round=3, seen_round=2, count=5,
        seen_count=6, wants_answer=True, zid="z", low_latency_port=8,
        leaving=(LeavingStream(number=7, node="n", output="o", given_up=4, window=9),),
        entering=(
            EnteringStream(
                node="m", output="p", run_id="b-1", accepted=6, stored=5, listening=True
            ),
        ),
    )  # fmt: skip
    golden = (
        b'{"protocol":[1,0],"release":"0.1.0","machine":"a","run_id":"a-1","wants_answer":true,'
        b'"round":3,"seen_round":2,"count":5,"seen_count":6,"zid":"z","low_latency_port":8,'
        b'"leaving":[{"number":7,"node":"n","output":"o","given_up":4,"window":9}],'
        b'"entering":[{"node":"m","output":"p","run_id":"b-1","accepted":6,"stored":5,'
        b'"listening":true}]}'
    )
    assert encode(hello) == golden
    assert decode(golden) == hello
