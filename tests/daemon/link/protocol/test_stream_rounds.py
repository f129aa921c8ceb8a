"""Which streams begin a round, and which may send."""

from __future__ import annotations

from dora_daemon.link.protocol.handshake import LinkHandshake
from dora_daemon.link.protocol.hello import EnteringStream, LeavingStream, LinkHello
from dora_daemon.link.protocol.stream_rounds import StreamRounds

LEAVING = LeavingStream(number=4, node="n", output="o", given_up=0)
ENTERING = EnteringStream(node="n", output="o", run_id="a-1", accepted=0, stored=0, listening=True)
SOURCE = ("n", "o")


def hello(round_: int = 1, **lists: object) -> LinkHello:
    return LinkHello(machine="b", run_id="b-1", round=round_).model_copy(update=lists)


def confirmed(theirs: LinkHello) -> LinkHandshake:
    known = LinkHandshake(3)
    known.receive(7, 3, theirs.model_copy(update={"seen_round": known.round}), 1)
    assert known.confirmed
    return known


def test_a_stream_begins_once_in_each_round_of_the_peer() -> None:
    rounds = StreamRounds()
    theirs = hello(leaving=(LEAVING, LEAVING.model_copy(update={"node": "unknown"})))
    assert list(rounds.beginning(7, theirs, {SOURCE: 0})) == [(LEAVING, True)]
    assert list(rounds.beginning(7, theirs, {SOURCE: 4})) == [(LEAVING, False)]
    assert list(rounds.beginning(8, theirs, {SOURCE: 4})) == [(LEAVING, True)]
    again = hello(2, leaving=(LEAVING,))
    assert list(rounds.beginning(8, again, {SOURCE: 4})) == [(LEAVING, True)]
    rounds.keep(())
    assert list(rounds.beginning(8, again, {SOURCE: 4})) == [(LEAVING, True)]
    assert list(rounds.beginning(8, again, {SOURCE: 9})) == [(LEAVING, True)]


def test_a_stream_resumes_once_in_each_pair_of_rounds() -> None:
    rounds = StreamRounds()
    known = confirmed(hello(entering=(ENTERING,)))
    assert list(rounds.resuming(known, "a-1", {SOURCE: 4})) == [(SOURCE, ENTERING)]
    assert list(rounds.resuming(known, "a-1", {SOURCE: 4})) == []
    rounds.interrupt()
    assert list(rounds.resuming(known, "a-1", {SOURCE: 4})) == [(SOURCE, ENTERING)]
    known.begin_round()
    assert list(rounds.resuming(known, "a-1", {SOURCE: 4})) == []


def test_a_stream_that_the_peer_does_not_expect_pauses() -> None:
    rounds = StreamRounds()
    known = confirmed(hello(entering=(ENTERING,)))
    assert list(rounds.resuming(known, "a-2", {SOURCE: 4})) == [(SOURCE, None)]
    assert list(rounds.resuming(known, "a-1", {("n", "other"): 5})) == [(("n", "other"), None)]


def test_a_stream_resumes_again_when_its_consumers_go() -> None:
    rounds = StreamRounds()
    known = confirmed(hello(entering=(ENTERING,)))
    assert list(rounds.resuming(known, "a-1", {SOURCE: 4})) == [(SOURCE, ENTERING)]
    gone = ENTERING.model_copy(update={"listening": False})
    known = confirmed(hello(entering=(gone,)))
    assert list(rounds.resuming(known, "a-1", {SOURCE: 4})) == [(SOURCE, gone)]
