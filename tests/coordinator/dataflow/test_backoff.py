"""Delay between attempts to spawn a part again."""

from __future__ import annotations

from dora_coordinator.dataflow.backoff import Backoff


def test_the_first_attempt_is_immediate_and_the_second_delayed() -> None:
    backoff = Backoff(30.0)
    assert backoff.wait("robot", "d1", 5.0) == 0.0
    backoff.attempted("robot", "d1", 5.0)
    assert backoff.wait("robot", "d1", 15.0) == 20.0
    assert backoff.wait("robot", "d1", 40.0) == 0.0
    assert backoff.wait("robot", "d2", 15.0) == backoff.wait("base", "d1", 15.0) == 0.0


def test_a_cleared_part_is_spawned_at_once() -> None:
    backoff = Backoff(30.0)
    backoff.attempted("robot", "d1", 5.0)
    backoff.clear("robot", "d1")
    assert backoff.wait("robot", "d1", 5.0) == 0.0


def test_a_forgotten_dataflow_leaves_nothing() -> None:
    backoff = Backoff(30.0)
    for dataflow in ("d1", "d2"):
        backoff.attempted("robot", dataflow, 5.0)
    backoff.forget("d1")
    backoff.forget("unknown")
    assert backoff.wait("robot", "d1", 5.0) == 0.0
    assert backoff.wait("robot", "d2", 5.0) == 30.0
