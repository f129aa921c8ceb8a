"""Which machines may change now, as tables with a clock that does not run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dora_config.protocol.fleet import CopyRecord, FleetStatus, Rollout
from dora_coordinator.fleet.rollout import Seen, batches, decide

ROLLOUT = Rollout(first=("r1",), then="50%", healthy=10.0, deadline=60.0, on_failure="rollback")
STATUS = FleetStatus(generation=2, finished=False)


def copy(machine: str, **changes: object) -> Seen:
    base = Seen(name=f"drive@{machine}", machine=machine, desired=2, differs=True)
    return replace(base, **changes)  # type: ignore[arg-type]


def promoted(machine: str) -> Seen:
    return copy(machine, differs=False, record=CopyRecord(reached=2, healthy=2))


def machines(*names: str) -> list[Seen]:
    return [copy(name) for name in names]


def test_batches() -> None:
    found = batches(ROLLOUT, machines("r3", "r1", "r4", "r2"))
    assert [[one.machine for one in batch] for batch in found] == [["r1"], ["r3", "r2"], ["r4"]]
    found = batches(Rollout(then=3), machines("r1", "r2", "r3", "r4"))
    assert [len(batch) for batch in found] == [3, 1]
    assert batches(Rollout(), []) == []


HEALTHY = copy("r1", differs=False, stable=10.0, record=CopyRecord(reached=2))


@pytest.mark.parametrize(
    ("first", "act"),
    [
        (copy("r1"), ["drive@r1"]),
        (copy("r1", busy=True), []),
        (copy("r1", differs=False, stable=None), []),
        (copy("r1", differs=False, stable=9.9), []),
        (HEALTHY, ["drive@r2", "drive@r3"]),
        (promoted("r1"), ["drive@r2", "drive@r3"]),
        (copy("r1", differs=False, ended=True), ["drive@r2", "drive@r3"]),
        (copy("r1", connected=False), []),
        (replace(HEALTHY, checked=False), []),
    ],
    ids=[
        *("changes", "busy", "not-ready", "not-long", "healthy", "promoted", "finished"),
        *("canary-off", "not-checked"),
    ],
)
def test_the_next_batch_begins_when_the_first_is_healthy(first: Seen, act: list[str]) -> None:
    decision = decide(STATUS, ROLLOUT, [first, *machines("r2", "r3", "r4")])
    assert decision.act == act
    assert decision.gives_up is None
    assert not decision.is_done


def test_a_check_is_run_before_a_machine_counts_as_healthy() -> None:
    decision = decide(STATUS, ROLLOUT, [replace(HEALTHY, checked=False), copy("r2")])
    assert (decision.check, decision.healthy) == (["drive@r1"], [])


def test_machines_that_are_off_do_not_block_later_batches() -> None:
    off = copy("r2", connected=False)
    decision = decide(STATUS, ROLLOUT, [promoted("r1"), off, promoted("r3"), copy("r4")])
    assert decision.act == ["drive@r4"]
    decision = decide(STATUS, ROLLOUT, [promoted("r1"), off, promoted("r3"), promoted("r4")])
    assert decision.is_done


def test_a_machine_that_returns_follows_at_once() -> None:
    returned = copy("r2")
    finished = STATUS.model_copy(update={"finished": True})
    decision = decide(finished, ROLLOUT, [promoted("r1"), returned, copy("r3"), promoted("r4")])
    assert decision.act == ["drive@r2", "drive@r3"]


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (copy("r1", differs=False, trouble='node "a" failed'), 'drive@r1: node "a" failed'),
        (copy("r1", record=CopyRecord(failed="no")), "drive@r1: no"),
        (copy("r1", open_for=61.0), "drive@r1: not healthy within 60 s"),
        (copy("r1", open_for=59.0), None),
        (replace(HEALTHY, open_for=61.0), None),
    ],
    ids=["trouble", "step-failed", "late", "not-late", "just-healthy"],
)
def test_a_failure_ends_the_roll_out(first: Seen, reason: str | None) -> None:
    decision = decide(STATUS, ROLLOUT, [first, copy("r2")])
    assert decision.gives_up == reason


def test_a_failure_because_of_a_hold_names_the_holder() -> None:
    held = 'node "arm" holds updates: it is moving'
    late = copy("r1", open_for=61.0, held=held)
    decision = decide(STATUS, ROLLOUT, [late, *machines("r2")])
    assert decision.gives_up == f"drive@r1: not changed within 60 s: {held}"


def test_a_batch_without_the_first_machines_does_not_wait_for_them() -> None:
    unplaced = replace(copy("r1"), machine=None, connected=False)
    decision = decide(STATUS, ROLLOUT, [unplaced, *machines("r2")])
    assert decision.act == [unplaced.name, "drive@r2"]
    assert decision.waits_for == "r2"


def test_failures_below_the_limit_are_left_behind() -> None:
    rollout = ROLLOUT.model_copy(update={"max_failed": 2, "first": ()})
    failed = copy("r1", record=CopyRecord(failed="no"))
    rest = [promoted("r2"), promoted("r3"), promoted("r4")]
    assert decide(STATUS, rollout, [failed, *rest]).is_done
    two = [failed, copy("r2", record=CopyRecord(failed="too")), *rest[1:]]
    assert decide(STATUS, rollout, two).gives_up == "drive@r1: no; drive@r2: too"


def test_nothing_is_done_while_it_is_paused() -> None:
    paused = STATUS.model_copy(update={"paused": "by me"})
    assert decide(paused, ROLLOUT, machines("r1")).act == []


def test_unchanged_dataflows_do_not_wait_for_waves() -> None:
    older = copy("r4", desired=1)
    assert decide(STATUS, ROLLOUT, [copy("r1"), copy("r2"), older]).act == ["drive@r4", "drive@r1"]


def test_a_removed_dataflow_is_stopped_before_its_machine_passes_also_when_it_is_off() -> None:
    stop = replace(copy("r1", desired=None, connected=False), name="old@r1")
    decision = decide(STATUS, ROLLOUT, [stop, promoted("r1"), copy("r2")])
    assert decision.act[0] == "old@r1"
