"""Which machines may change now, as tables with a clock that does not run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from dora_config.cluster.fleet import Rollout
from dora_config.cluster.rollout import Decision, RollOut, Seen, Track, batches

ROLLOUT = Rollout(first=("r1",), then="50%", healthy=10.0, deadline=60.0, on_failure="rollback")
NOW = 1000.0


@dataclass
class Row:
    """One dataflow, and for how long it has been open and stable."""

    seen: Seen
    open_for: float = 0.0
    stable: float | None = None
    track: Track = field(default_factory=Track)


def copy(
    machine: str, *, open_for: float = 0.0, stable: float | None = None, **changes: Any
) -> Row:
    track = Track(
        busy=changes.pop("busy", False),
        checked=changes.pop("checked", False),
        open_since=NOW - open_for,
    )
    base = Seen(name=f"drive@{machine}", machine=machine, differs=True)
    if stable is not None:
        changes["processes"] = track.processes = "its processes"
        track.since = NOW - stable
    return Row(replace(base, **changes), open_for, stable, track)


def promoted(machine: str) -> Row:
    return copy(machine, differs=False, healthy=True)


def machines(*names: str) -> list[Row]:
    return [copy(name) for name in names]


def decide(rollout: Rollout, rows: Sequence[Row], **state: bool) -> Decision:
    engine = RollOut()
    engine.tracks = {one.seen.name: one.track for one in rows}
    return engine.decide(rollout, [one.seen for one in rows], NOW, **state)


def test_batches() -> None:
    rows = [row.seen for row in machines("r3", "r1", "r4", "r2")]
    found = batches(ROLLOUT, rows)
    assert [[one.machine for one in batch] for batch in found] == [["r1"], ["r3", "r2"], ["r4"]]
    assert [len(batch) for batch in batches(Rollout(then=3), rows)] == [3, 1]
    assert batches(Rollout(), []) == []


HEALTHY = {"differs": False, "stable": 10.0}
CHECK = ROLLOUT.model_copy(update={"check": "true"})


@pytest.mark.parametrize(
    ("first", "act"),
    [
        (copy("r1"), ["drive@r1"]),
        (copy("r1", busy=True), []),
        (copy("r1", differs=False), []),
        (copy("r1", differs=False, stable=9.9), []),
        (copy("r1", **HEALTHY), ["drive@r2", "drive@r3"]),
        (promoted("r1"), ["drive@r2", "drive@r3"]),
        (copy("r1", differs=False, ended=True), ["drive@r2", "drive@r3"]),
        (copy("r1", connected=False), []),
    ],
    ids=[
        *("changes", "busy", "not-ready", "not-long", "healthy", "promoted", "finished"),
        "canary-off",
    ],
)
def test_the_next_batch_begins_when_the_first_is_healthy(first: Row, act: list[str]) -> None:
    decision = decide(ROLLOUT, [first, *machines("r2", "r3", "r4")])
    assert decision.act == act
    assert decision.gives_up is None
    assert not decision.is_done
    assert decision.is_stuck == (not first.seen.connected)


def test_a_check_is_run_before_a_machine_counts_as_healthy() -> None:
    decision = decide(CHECK, [copy("r1", **HEALTHY), copy("r2")])
    assert (decision.check, decision.healthy, decision.act) == (["drive@r1"], [], [])
    decision = decide(CHECK, [copy("r1", busy=True, **HEALTHY), copy("r2")])
    assert (decision.check, decision.healthy, decision.act) == ([], [], [])
    decision = decide(CHECK, [copy("r1", checked=True, **HEALTHY), copy("r2")])
    assert (decision.check, decision.healthy, decision.act) == ([], ["drive@r1"], ["drive@r2"])


def test_machines_that_are_off_do_not_block_later_batches() -> None:
    off = copy("r2", connected=False)
    decision = decide(ROLLOUT, [promoted("r1"), off, promoted("r3"), copy("r4")])
    assert decision.act == ["drive@r4"]
    decision = decide(ROLLOUT, [promoted("r1"), off, promoted("r3"), promoted("r4")])
    assert decision.is_done


def test_a_machine_that_returns_follows_at_once() -> None:
    rows = [promoted("r1"), copy("r2"), copy("r3"), promoted("r4")]
    assert decide(ROLLOUT, rows, finished=True).act == ["drive@r2", "drive@r3"]


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (copy("r1", differs=False, trouble='node "a" failed'), 'drive@r1: node "a" failed'),
        (copy("r1", failed="no"), "drive@r1: no"),
        (copy("r1", open_for=61.0), "drive@r1: not healthy within 60 s"),
        (copy("r1", open_for=61.0, unready="x"), "drive@r1: not healthy within 60 s: x"),
        (copy("r1", open_for=61.0, held="y"), "drive@r1: not changed within 60 s: y"),
        (copy("r1", open_for=59.0), None),
        (copy("r1", open_for=61.0, **HEALTHY), None),
    ],
    ids=["trouble", "step-failed", "late", "unready", "held", "not-late", "just-healthy"],
)
def test_a_failure_ends_the_roll_out(first: Row, reason: str | None) -> None:
    assert decide(ROLLOUT, [first, copy("r2")]).gives_up == reason


def test_a_batch_without_the_first_machines_does_not_wait_for_them() -> None:
    row = copy("r1", connected=False)
    unplaced = replace(row, seen=replace(row.seen, machine=None))
    decision = decide(ROLLOUT, [unplaced, *machines("r2")])
    assert decision.act == [unplaced.seen.name, "drive@r2"]
    assert decision.waits_for == "r2"


def test_failures_below_the_limit_are_left_behind() -> None:
    rollout = ROLLOUT.model_copy(update={"max_failed": 2, "first": ()})
    failed = copy("r1", failed="no")
    rest = [promoted("r2"), promoted("r3"), promoted("r4")]
    assert decide(rollout, [failed, *rest]).is_done
    two = [failed, copy("r2", failed="too"), *rest[1:]]
    assert decide(rollout, two).gives_up == "drive@r1: no; drive@r2: too"


def test_while_it_is_paused_nothing_is_done_and_no_deadline_runs() -> None:
    late = copy("r1", open_for=61.0)
    assert decide(ROLLOUT, [late], paused=True) == Decision()
    assert late.track.open_since is None
    assert decide(ROLLOUT, [late]).gives_up is None


def test_a_refused_step_is_tried_again_later() -> None:
    engine, seen = RollOut(), [copy("r1").seen]
    engine.step_ended("drive@r1", NOW, refusal="busy")
    assert engine.decide(ROLLOUT, seen, NOW + 1.9).act == []
    assert engine.decide(ROLLOUT, seen, NOW + 2.0).act == ["drive@r1"]


def test_unchanged_dataflows_do_not_wait_for_waves() -> None:
    older = copy("r4", affected=False)
    assert decide(ROLLOUT, [copy("r1"), copy("r2"), older]).act == ["drive@r4", "drive@r1"]


def test_a_removed_dataflow_is_stopped_before_its_machine_passes_also_when_it_is_off() -> None:
    stop = copy("r1", removed=True, connected=False, name="old@r1")
    decision = decide(ROLLOUT, [stop, promoted("r1"), copy("r2")])
    assert decision.act[0] == "old@r1"
