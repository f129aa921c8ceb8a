"""Requests to a runner: repeated until they are answered, timed out by silence."""

from __future__ import annotations

import pytest

from dora_config.protocol.links import SetLinkPeers
from dora_config.protocol.runner import GetStatus, RunnerReply, RunnerRequest, StopAllNodes
from dora_daemon.agent.runners.pending_requests import (
    FIRST_REQUESTS,
    FORCED_SILENCE_LIMIT,
    SILENCE_LIMIT,
    PendingRequests,
)


def on_reply(reply: RunnerReply | None, problem: str | None) -> None:
    """The callback of a call."""


def test_unanswered_requests_are_repeated_and_calls_end_with_the_connection() -> None:
    requests = PendingRequests()
    requests.add(SetLinkPeers())
    requests.add(GetStatus())
    requests.add(GetStatus(), on_reply)
    assert requests.disconnect() == [on_reply]
    assert requests.connect() == [*FIRST_REQUESTS, SetLinkPeers()]


def test_answered_requests_are_not_repeated() -> None:
    requests = PendingRequests()
    number = requests.add(SetLinkPeers())
    call = requests.add(GetStatus(), on_reply)
    assert requests.receive(number) is None
    assert requests.receive(call) is on_reply
    assert requests.receive(call) is None
    assert requests.disconnect() == []
    assert requests.connect() == [*FIRST_REQUESTS]


def ticks_until_timeout(requests: PendingRequests) -> int:
    for ticks in range(1, 100):
        calls, stop_timed_out = requests.tick()
        if calls or stop_timed_out:
            return ticks
    raise AssertionError("no timeout")


@pytest.mark.parametrize(
    ("request_", "limit"),
    [
        (StopAllNodes(), SILENCE_LIMIT),
        (StopAllNodes(force=True), FORCED_SILENCE_LIMIT),
    ],
)
def test_stop_of_a_silent_runner_times_out_once(request_: RunnerRequest, limit: int) -> None:
    requests = PendingRequests()
    requests.add(request_)
    assert requests.is_timed
    assert ticks_until_timeout(requests) == limit + 1
    assert not requests.is_timed
    assert requests.tick() == ([], False)


def test_any_message_restarts_the_timeout() -> None:
    requests = PendingRequests()
    requests.add(GetStatus(), on_reply)
    for _ in range(SILENCE_LIMIT):
        assert requests.tick() == ([], False)
    requests.receive(None)
    assert ticks_until_timeout(requests) == SILENCE_LIMIT + 1
    assert requests.disconnect() == []


def test_other_requests_do_not_time_out() -> None:
    requests = PendingRequests()
    requests.add(SetLinkPeers())
    assert not requests.is_timed
    for _ in range(2 * SILENCE_LIMIT):
        assert requests.tick() == ([], False)
