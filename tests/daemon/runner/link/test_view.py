"""State of the link over its processes."""

from __future__ import annotations

from typing import Any

from dora_config.protocol.links import LinkCounters, PeerReport
from dora_daemon.link.protocol.messages import (
    Failed,
    Listening,
    PeerChanged,
    StreamCount,
    StreamCounts,
)
from dora_daemon.runner.link.view import LinkView


def counts(**fields: Any) -> StreamCounts:
    one = StreamCount(machine="b", node="cam", output="image", direction="out", **fields)
    return StreamCounts(streams=(one,))


def test_expected_peers_are_listed_before_they_connect() -> None:
    view = LinkView()
    view.expected = ("b", "c")
    seen = PeerReport(machine="c", run_id="2", state="connected", endpoint="h:1", rtt_us=70)
    view.update(PeerChanged(peer=seen))
    assert view.report().peers == (PeerReport(machine="b"), seen)


def test_a_failure_to_listen_is_reported_until_it_listens() -> None:
    view = LinkView()
    view.update(Failed(reason="no port of 7450-7549 is free"))
    assert view.report().problem == "no port of 7450-7549 is free"
    assert view.port is None
    view.update(Listening(endpoints=("[::1]:7451",)))
    assert view.report().problem is None
    assert view.port == 7451


def test_after_the_end_of_a_process_peers_are_lost_and_endpoints_kept() -> None:
    view = LinkView()
    view.update(Listening(endpoints=("h:7450",)))
    view.update(PeerChanged(peer=PeerReport(machine="b", state="connected", run_id="1")))
    view.update(PeerChanged(peer=PeerReport(machine="c", state="left", run_id="1")))
    view.link_ended()
    report = view.report()
    assert report.endpoints == ("h:7450",)
    assert [(peer.machine, peer.state) for peer in report.peers] == [("b", "lost"), ("c", "left")]
    assert report.peers[0].reason


def test_counters_are_summed_over_processes() -> None:
    view = LinkView()
    assert view.crossing("b", "cam", "image", "out") == LinkCounters(machine="b")
    view.update(counts(messages=5, lost=1, waiting=3))
    view.update(counts(messages=8, lost=1, waiting=2))
    view.link_ended()
    view.update(counts(messages=2, lost=0, waiting=1))
    assert view.crossing("b", "cam", "image", "out") == LinkCounters(
        machine="b", messages=10, lost=1, waiting=1
    )
    view.link_ended()
    assert view.crossing("b", "cam", "image", "out").messages == 10


def test_received_bytes_are_not_reported_as_sent_after_the_end_of_a_process() -> None:
    view = LinkView()
    one = StreamCount(machine="b", node="cam", output="image", direction="in", bytes=900)
    view.update(StreamCounts(streams=(one,)))
    assert view.crossing("b", "cam", "image", "in").raw_bytes == 0
    view.link_ended()
    assert view.crossing("b", "cam", "image", "in").raw_bytes == 0


def test_a_new_round_trip_time_is_not_reported_at_once() -> None:
    view = LinkView()
    view.update(PeerChanged(peer=PeerReport(machine="b", state="connected", run_id="1", rtt_us=10)))
    before = view.report().without_figures()
    view.update(
        PeerChanged(
            peer=PeerReport(
                machine="b", state="connected", run_id="1", rtt_us=99, clock_offset_us=5
            )
        )
    )
    assert view.report().without_figures() == before
    view.update(PeerChanged(peer=PeerReport(machine="b", state="lost", run_id="1")))
    assert view.report().without_figures() != before
