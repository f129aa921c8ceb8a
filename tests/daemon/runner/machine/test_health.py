"""Stalled processes and timed-out inputs."""

from __future__ import annotations

from dora_daemon.runner.machine.health import HealthWatch, InputWatch, ProcessSample


def samples(*taken: tuple[float, bool, float]) -> list[float]:
    """Return the results for (time, schedulable, CPU seconds) of one process."""
    watch = HealthWatch()
    return [
        watch.sample(7, ProcessSample(able, cpu), connected_at=100.0, now=now)
        for now, able, cpu in taken
    ]


def test_a_process_that_waits_or_computes_is_not_stalled() -> None:
    assert samples((105, True, 1.0), (110, True, 1.0), (115, True, 6.0)) == [0, 0, 0]


def test_a_stopped_process_is_stalled_since_it_last_could_run() -> None:
    assert samples((105, True, 1.0), (110, False, 1.0), (115, False, 1.0)) == [0, 5, 10]
    assert samples((105, False, 1.0), (110, False, 1.0), (115, True, 1.0)) == [5, 10, 0]


def test_a_process_that_used_cpu_time_between_samples_is_not_stalled() -> None:
    assert samples((105, False, 1.0), (110, False, 1.5), (115, False, 1.5)) == [5, 0, 5]


def test_the_next_process_of_a_node_has_a_new_history() -> None:
    watch = HealthWatch()
    stopped = ProcessSample(schedulable=False, cpu_seconds=9.0)
    assert watch.sample(7, stopped, connected_at=100.0, now=110.0) == 10.0
    assert watch.sample(8, stopped, connected_at=111.0, now=112.0) == 1.0


def test_the_wait_at_the_start_barrier_does_not_count() -> None:
    watch = HealthWatch()
    stopped = ProcessSample(schedulable=False, cpu_seconds=1.0)
    assert watch.sample(7, stopped, connected_at=100.0, now=110.0) == 10.0
    assert watch.sample(7, stopped, connected_at=109.0, now=110.0) == 1.0


def test_an_input_is_armed_by_its_first_message_then_breaks_and_recovers() -> None:
    watch = InputWatch()

    def look(last_arrival: float, now: float) -> set[str]:
        watch.sample("i", last_arrival=last_arrival, timeout=3.0, now=now)
        return set(watch.broken)

    assert look(0.0, 100.0) == set()
    assert look(98.0, 100.0) == set()
    assert look(98.0, 101.1) == {"i"}
    assert look(98.0, 105.0) == {"i"}
    assert watch.timeouts == 1
    assert watch.recoveries == 0
    assert look(105.5, 106.0) == set()
    assert (watch.timeouts, watch.recoveries) == (1, 1)


def test_an_input_that_ended_is_not_broken() -> None:
    watch = InputWatch()
    watch.sample("i", last_arrival=1.0, timeout=1.0, now=10.0)
    watch.closed("i")
    watch.closed("another")
    assert watch.broken == set()
    assert watch.recoveries == 0
