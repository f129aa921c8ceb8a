"""State machine of one node: events that the whole state does not produce."""

from __future__ import annotations

from itertools import count

import pytest
from support.runner.nodes import node

from dora_config.dataflow.resolved import ResolvedNode
from dora_config.errors import InvalidTransition
from dora_daemon.runner.machine import commands as c, events as e
from dora_daemon.runner.machine.node import NodeLifecycle, NodeState, StopOrder


def lifecycle(spec: ResolvedNode | None = None) -> NodeLifecycle:
    return NodeLifecycle(spec or node("a"), count(1), count().__next__)


def running() -> NodeLifecycle:
    life = lifecycle()
    life.spawn()
    life.handle(e.NodeSpawned("a", 1, 7), 0.0)
    life.handle(e.NodeConnected("a", 1, 7), 0.0)
    life.open_barrier()
    assert life.state is NodeState.RUNNING
    return life


@pytest.mark.parametrize(
    "event",
    [
        e.NodeSpawned("a", 1, 7),
        e.SpawnFailed("a", 1, "no such file"),
        e.NodeExited("a", 1, e.Exit(code=0)),
        e.NodeDetached("a", 1),
    ],
)
def test_events_of_a_process_are_impossible_without_one(event: e.NodeSpawned) -> None:
    with pytest.raises(InvalidTransition, match=r'node "a".*planned'):
        lifecycle().handle(event, 0.0)


def test_a_node_without_a_process_has_no_successor() -> None:
    with pytest.raises(InvalidTransition, match=r'node "a".*planned'):
        lifecycle().order(StopOrder(1.0, "replace"), 0.0)


def test_late_events_are_ignored_after_the_end() -> None:
    life = running()
    life.handle(e.NodeExited("a", 1, e.Exit(code=0)), 1.0)
    assert life.state is NodeState.ENDED
    life.open_barrier()
    assert life.end_inputs(2.0) == []
    assert life.handle(e.TimerFired("a", "kill"), 2.0) == []
    assert life.order(StopOrder(1.0), 2.0) == []
    assert life.ended


def test_sends_wait_for_room_during_a_restart_until_the_node_is_to_end() -> None:
    life = running()
    assert c.SendStop("a", restarts=True) in life.order(StopOrder(9.0, "restart"), 1.0)
    assert not any(
        isinstance(one, c.SendStop) for one in life.order(StopOrder(8.0, "restart"), 2.0)
    )
    assert c.SendStop("a") in life.order(StopOrder(7.0), 3.0)
    assert not any(isinstance(one, c.SendStop) for one in life.order(StopOrder(6.0), 4.0))


def test_a_timer_of_another_state_is_ignored() -> None:
    life = running()
    others: tuple[e.TimerName, ...] = ("backoff", "startup", "terminate", "kill")
    for timer in others:
        assert life.handle(e.TimerFired("a", timer), 1.0) == []
    assert life.state is NodeState.RUNNING


def test_a_child_that_sends_hello_is_refused_with_the_pid_of_its_parent() -> None:
    (refusal,) = running().handle(e.NodeConnected("a", 1, 8), 0.0)
    assert isinstance(refusal, c.Refuse)
    assert "already connected as process 7" in refusal.message
