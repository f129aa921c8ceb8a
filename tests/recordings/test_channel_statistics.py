"""Counts, rates and gaps of a channel."""

from __future__ import annotations

import pytest

from dora_recordings.channel_statistics import ChannelStatistics

MS = 1_000_000


def test_rate_longest_gap_and_missing_messages() -> None:
    channel = ChannelStatistics("a/b")
    for number, at in ((5, 0), (6, 10), (9, 50), (10, 60)):
        channel.add("uint8", at * MS, number, 100)
    assert (channel.messages, channel.nbytes, channel.missing) == (4, 400, 2)
    assert channel.longest_gap == 40 * MS
    assert channel.rate == pytest.approx(50.0)


def test_one_message_has_no_rate() -> None:
    channel = ChannelStatistics("a/b")
    channel.add("uint8", 5 * MS, 1, 8)
    assert channel.rate is None
    assert channel.missing == 0
