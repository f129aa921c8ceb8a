"""Times on the coordinator's clock."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from dora_config.protocol.recordings import ClockSample
from dora_daemon.recording.clocks import BUCKET_NS, ClockCorrection

MINUTE = BUCKET_NS


def sample(monotonic: int, coordinator: int, trip: int = 1000, boot: str = "b") -> ClockSample:
    return ClockSample(
        boot_id=boot, monotonic_ns=monotonic, coordinator_ns=coordinator, round_trip_ns=trip
    )


def test_times_between_samples_follow_the_drift() -> None:
    clock = ClockCorrection([sample(0, 1000), sample(2 * MINUTE, 1000 + 2 * MINUTE + 600)], "b")
    assert clock.coordinator_ns(MINUTE) == 1000 + MINUTE + 300
    assert clock.coordinator_ns(-50) == 950
    assert clock.coordinator_ns(2 * MINUTE + 50) == 1000 + 2 * MINUTE + 650


def test_of_samples_close_together_the_shortest_round_trip_counts() -> None:
    clock = ClockCorrection([sample(0, 7000, 9000), sample(100, 1100, 200)], "b")
    assert clock.coordinator_ns(500) == 1500
    assert clock.round_trip_ns == 200


def test_samples_of_another_boot_are_ignored() -> None:
    assert not ClockCorrection([sample(0, 5, boot="earlier")], "b")
    assert ClockCorrection([], "b").round_trip_ns is None


@given(
    st.lists(st.tuples(st.integers(0, 10**13), st.integers(0, 10**13)), min_size=1),
    st.lists(st.integers(0, 10**13), min_size=2),
)
def test_the_order_of_times_is_kept(samples: list[tuple[int, int]], times: list[int]) -> None:
    """Also after restarts of a coordinator whose clock was changed."""
    clock = ClockCorrection([sample(*one) for one in samples], "b")
    corrected = [clock.coordinator_ns(time) for time in sorted(times)]
    assert corrected == sorted(corrected)


@pytest.mark.parametrize("offset", [-(10**18), 0, 10**18])
def test_one_sample_is_an_offset(offset: int) -> None:
    clock = ClockCorrection([sample(10, 10 + offset)], "b")
    assert clock.coordinator_ns(10**15) == 10**15 + offset
