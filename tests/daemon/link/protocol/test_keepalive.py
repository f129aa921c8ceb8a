"""Pings that make a connection write out what it buffers."""

from __future__ import annotations

from dora_daemon.link.protocol.keepalive import (
    ACK_DELAY_NS,
    FIRST_NS,
    FIRST_SMALL_NS,
    MAX_NS,
    Keepalive,
)

MS = 1_000_000


def test_nothing_is_due_while_all_is_acknowledged() -> None:
    keepalive = Keepalive()
    keepalive.sent(100 * MS, large=True)
    assert keepalive.due(105 * MS, waiting=False) is None
    assert keepalive.due(10_000 * MS, waiting=False) is None


def test_the_interval_doubles() -> None:
    keepalive = Keepalive()
    start = 100 * MS
    keepalive.sent(start, large=True)
    assert keepalive.due(start + 1 * MS, waiting=True) == FIRST_NS - 1 * MS
    times, now = [], start
    for _ in range(10):
        left = keepalive.due(now, waiting=True)
        assert left is not None
        if left:
            now += left
        else:
            times.append(now)
    between = [later - earlier for earlier, later in zip([start, *times], times, strict=False)]
    assert between == [FIRST_NS * 2**n for n in range(len(between))]
    for _ in range(40):
        left = keepalive.due(now, waiting=True)
        assert left is not None
        assert left <= MAX_NS
        now += left


def test_no_ping_is_due_while_messages_are_sent() -> None:
    keepalive = Keepalive()
    now = 100 * MS
    for _ in range(50):
        keepalive.sent(now, large=True)
        assert keepalive.due(now + FIRST_NS // 2, waiting=True) == FIRST_NS // 2
        now += FIRST_NS // 2


def test_another_message_resets_the_interval() -> None:
    keepalive = Keepalive()
    now = 100 * MS
    keepalive.sent(now, large=True)
    for _ in range(20):
        now += keepalive.due(now, waiting=True) or 0
    keepalive.sent(now, large=True)
    assert keepalive.due(now, waiting=True) == FIRST_NS


def test_a_ping_after_small_messages_waits_for_their_acknowledgement() -> None:
    keepalive = Keepalive()
    due = keepalive.sent(100 * MS, large=False)
    assert due == 100 * MS + FIRST_SMALL_NS > 100 * MS + ACK_DELAY_NS
    assert keepalive.due(100 * MS, waiting=True) == FIRST_SMALL_NS
    assert keepalive.due(due, waiting=True) == 0
