"""Samples of the coordinator's clock."""

from __future__ import annotations

from dora_recordings.recorders.service import KEPT_SAMPLES, ClockSamples

SECOND = 1_000_000_000


def test_of_each_span_the_sample_with_the_shortest_round_trip_is_stored() -> None:
    samples = ClockSamples("boot")
    stored = []
    for number in range(8):
        sent = number * 3 * SECOND
        trip = 1000 if number == 2 else 5000
        sample = samples.add(sent, sent + trip, 100 * SECOND + sent)
        if sample is not None:
            stored.append(sample)
    assert [one.round_trip_ns for one in stored] == [1000]
    assert stored[0].monotonic_ns == 6 * SECOND + 500
    assert stored[0].coordinator_ns == 106 * SECOND
    assert [one.round_trip_ns for one in samples.recent()] == [1000, 5000]


def test_a_new_recording_gets_the_last_samples() -> None:
    samples = ClockSamples("boot")
    assert samples.recent() == []
    samples.add(0, 10, 5)
    assert [one.monotonic_ns for one in samples.recent()] == [5]
    for number in range(1, 300):
        samples.add(number * 11 * SECOND, number * 11 * SECOND + 10, 5)
    assert len(samples.recent()) in (KEPT_SAMPLES, KEPT_SAMPLES + 1)
