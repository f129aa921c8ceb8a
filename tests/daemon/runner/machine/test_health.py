"""Who has fallen silent, and which inputs have timed out."""

from __future__ import annotations

import pytest

from dora_daemon.runner.machine.health import InputWatch, Pulse, silence


@pytest.mark.parametrize(
    ("pulse", "expected"),
    [
        (Pulse(last_beat=90.0, waiting=False), 10.0),
        (Pulse(last_beat=0.0, waiting=False), 50.0),
        (Pulse(last_beat=101.0, waiting=False), 0.0),
        (Pulse(last_beat=0.0, waiting=True), 0.0),
        (Pulse(last_beat=0.0, waiting=False, blocked=True), 0.0),
    ],
)
def test_silence(pulse: Pulse, expected: float) -> None:
    assert silence(pulse, connected_at=50.0, now=100.0) == expected


def test_an_input_is_armed_by_its_first_message_breaks_and_recovers() -> None:
    watch = InputWatch()

    def look(last_arrival: float, now: float) -> set[str]:
        watch.look("n", "i", last_arrival=last_arrival, timeout=3.0, now=now)
        return watch.broken["n"]

    assert look(0.0, 100.0) == set()
    assert look(98.0, 100.0) == set()
    assert look(98.0, 101.1) == {"i"}
    assert look(98.0, 105.0) == {"i"}
    assert watch.timeouts == {"n": 1}
    assert watch.recoveries == {}
    assert look(105.5, 106.0) == set()
    assert (watch.timeouts, watch.recoveries) == ({"n": 1}, {"n": 1})


def test_an_input_that_ended_is_not_broken() -> None:
    watch = InputWatch()
    watch.look("n", "i", last_arrival=1.0, timeout=1.0, now=10.0)
    watch.closed("n", "i")
    watch.closed("other", "i")
    assert watch.broken["n"] == set()
    assert watch.recoveries == {}
