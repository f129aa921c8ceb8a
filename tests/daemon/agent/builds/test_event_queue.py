"""Events of a build: in order, one batch at a time, bounded, dropped lines are counted."""

from __future__ import annotations

from hypothesis import given, strategies as st

from dora_config.protocol.builds import NodeBuildEvent
from dora_daemon.agent.builds.processes import MAX_BATCH, MAX_LINES, BuildEventQueue


def line(number: int) -> NodeBuildEvent:
    return NodeBuildEvent(node="n", what="output", text=str(number))


def test_next_batch_waits_for_the_acknowledgement() -> None:
    queue = BuildEventQueue()
    queue.add(line(1))
    assert queue.next_batch() == ((line(1),), 0)
    queue.add(line(2))
    assert queue.next_batch() is None
    queue.acknowledge()
    assert queue.next_batch() == ((line(2),), 0)
    assert queue.is_empty


def test_oldest_lines_are_dropped_but_no_steps() -> None:
    queue = BuildEventQueue()
    step = NodeBuildEvent(node="n", what="step", text="make")
    queue.add(step)
    for number in range(MAX_LINES + 3):
        queue.add(line(number))
    batch = queue.next_batch()
    assert batch is not None
    events, dropped = batch
    assert (events[:2], len(events), dropped) == ((step, line(3)), MAX_BATCH, 3)


@given(st.lists(st.sampled_from(["add", "send", "acknowledge"]), max_size=60))
def test_nothing_is_lost_or_repeated_below_the_limit(steps: list[str]) -> None:
    queue = BuildEventQueue()
    added = 0
    sent: list[str] = []
    for step in [*steps, "acknowledge", "send"]:
        if step == "add":
            queue.add(line(added))
            added += 1
        elif step == "acknowledge":
            queue.acknowledge()
        elif (batch := queue.next_batch()) is not None:
            sent += [event.text for event in batch[0]]
    assert sent == [str(number) for number in range(added)]
