"""News of a build: in order, one portion at a time, bounded, and what is left out is counted."""

from __future__ import annotations

from hypothesis import given, strategies as st

from dora_config.protocol.builds import NodeBuildEvent
from dora_daemon.agent.builds.reports import MOST_AT_ONCE, MOST_WAITING, NewsBuffer


def line(number: int) -> NodeBuildEvent:
    return NodeBuildEvent(node="n", what="output", text=str(number))


def test_the_next_portion_waits_until_the_last_was_taken() -> None:
    buffer = NewsBuffer()
    buffer.add(line(1))
    assert buffer.next() == ((line(1),), 0)
    buffer.add(line(2))
    assert buffer.next() is None
    buffer.taken()
    assert buffer.next() == ((line(2),), 0)
    assert buffer.is_empty


def test_a_slow_reader_misses_the_oldest_lines_but_no_step() -> None:
    buffer = NewsBuffer()
    step = NodeBuildEvent(node="n", what="step", text="make")
    buffer.add(step)
    for number in range(MOST_WAITING + 3):
        buffer.add(line(number))
    portion = buffer.next()
    assert portion is not None
    news, left_out = portion
    assert (news[:2], len(news), left_out) == ((step, line(3)), MOST_AT_ONCE, 3)


@given(st.lists(st.sampled_from(["add", "next", "taken"]), max_size=60))
def test_nothing_is_lost_or_told_twice_below_the_bound(steps: list[str]) -> None:
    buffer = NewsBuffer()
    added = 0
    told: list[str] = []
    for step in [*steps, "taken", "next"]:
        if step == "add":
            buffer.add(line(added))
            added += 1
        elif step == "taken":
            buffer.taken()
        elif (portion := buffer.next()) is not None:
            told += [news.text for news in portion[0]]
    assert told == [str(number) for number in range(added)]
