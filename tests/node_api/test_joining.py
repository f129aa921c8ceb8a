"""Samples of the same instant, against an oracle that looks at all messages each time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings, strategies as st

from dora_node_api.joining import Joiner

WITHIN, WAIT = 10, 25
PATIENCE = WITHIN + WAIT
NAMES = ("front", "wrist", "state")


@dataclass(frozen=True)
class Arrival:
    """A message that was captured at a time, or the end of an input."""

    now: int
    name: str
    time: int | None
    number: int


@dataclass
class Found:
    """When each message of the leader was decided, and with which others."""

    matches: list[tuple[int, dict[str, int]]] = field(default_factory=list)
    dropped: list[tuple[int, int]] = field(default_factory=list)


def arrivals(times: st.SearchStrategy[list[int]], names: int) -> st.SearchStrategy[list[Arrival]]:
    """Inputs with these times of captures each, which arrive in any order."""

    @st.composite
    def draw_arrivals(draw: st.DrawFn) -> list[Arrival]:
        waiting: dict[str, list[int | None]] = {name: list(draw(times)) for name in NAMES[:names]}
        for captures in waiting.values():
            captures.extend([None] * draw(st.integers(0, 1)))
        now = 0
        found: list[Arrival] = []
        while left := [name for name, captures in waiting.items() if captures]:
            now += draw(st.integers(0, 12))
            name = draw(st.sampled_from(left))
            found.append(Arrival(now, name, waiting[name].pop(0), len(found)))
        return found

    return draw_arrivals()


in_order = st.lists(st.integers(0, 30), max_size=8).map(
    lambda steps: [sum(steps[: end + 1]) for end in range(len(steps))]
)
in_any_order = st.lists(st.integers(0, 200), max_size=8)


def joined(log: list[Arrival], names: tuple[str, ...]) -> tuple[Joiner[int], Found]:
    """Feed a joiner, and look at it whenever it asks for it."""
    joiner = Joiner[int](names, within=WITHIN, wait=WAIT)
    found = Found()

    def look(now: int) -> None:
        before = joiner.dropped[names[0]]
        while (match := joiner.next(now)) is not None:
            found.matches.append((now, dict(match.items)))
        found.dropped += [(now, 1)] * (joiner.dropped[names[0]] - before)

    for arrival in log:
        while (due := joiner.due) is not None and due <= arrival.now:
            look(due)
        if arrival.time is None:
            joiner.end(arrival.name)
        else:
            joiner.add(arrival.name, arrival.time, arrival.number, arrival.now)
        look(arrival.now)
    while (due := joiner.due) is not None:
        look(due)
    return joiner, found


def moments(log: list[Arrival], leaders: list[Arrival]) -> Iterator[tuple[int, int]]:
    """Times at which something may be decided, with the number of messages that have arrived."""
    arrived = [(one.now, 1, one.number + 1) for one in log]
    waited = [
        (one.now + more, 0, sum(other.now < one.now + more for other in log))
        for one in leaders
        for more in (WITHIN, PATIENCE)
    ]
    yield from ((now, count) for now, _, count in sorted(arrived + waited))


def oracle(log: list[Arrival], names: tuple[str, ...]) -> Found:
    """The definition, without memory."""
    leaders = [one for one in log if one.name == names[0] and one.time is not None]
    found = Found()
    undecided = list(leaders)
    for now, count in moments(log, leaders):
        while undecided and undecided[0].number < count:
            decision = decide(undecided[0], log[:count], names[1:], now)
            if decision is None:
                break
            leader = undecided.pop(0)
            if decision:
                found.matches.append((now, {names[0]: leader.number, **decision[0]}))
            else:
                found.dropped.append((now, 1))
    assert not undecided
    return found


def decide(
    leader: Arrival, log: list[Arrival], others: tuple[str, ...], now: int
) -> list[dict[str, int]] | None:
    """Return the other messages of the match; an empty list: impossible; None: not yet."""
    time = leader.time
    assert time is not None
    match: dict[str, int] = {}
    impossible = later = False
    for name in others:
        known = [one for one in log if one.name == name]
        captured = [(one.time, one) for one in known if one.time is not None]
        passed = len(captured) < len(known) or any(one >= time for one, _ in captured)
        near = [
            (abs(capture - time), capture, -one.number)
            for capture, one in captured
            if abs(capture - time) <= WITHIN and one.now + PATIENCE >= leader.now
        ]
        if near:
            match[name] = -min(near)[2]
        impossible |= passed and not near
        later |= not passed
    complete = len(match) == len(others)
    if impossible or (not complete and now >= leader.now + PATIENCE):
        return []
    if complete and (not later or now >= leader.now + WITHIN):
        return [match]
    return None


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_sample_is_that_of_the_oracle(count: int) -> None:
    names = NAMES[:count]

    @settings(max_examples=200, deadline=None)
    @given(arrivals(in_order, count))
    def check(log: list[Arrival]) -> None:
        joiner, found = joined(log, names)
        assert found == oracle(log, names)
        assert joiner.dropped[names[0]] == len(found.dropped)

    check()


@settings(max_examples=200, deadline=None)
@given(arrivals(in_any_order, 3))
def test_whatever_the_times_each_message_is_matched_or_counted(log: list[Arrival]) -> None:
    joiner, found = joined(log, NAMES)
    times = {one.number: one.time for one in log}
    leaders = [one.number for one in log if one.name == NAMES[0] and one.time is not None]
    decided = [match[NAMES[0]] for _, match in found.matches]
    assert len(set(decided)) == len(decided)
    assert len(decided) + joiner.dropped[NAMES[0]] == len(leaders)
    for _, match in found.matches:
        captures = [times[number] for number in match.values()]
        leader = captures[0]
        assert leader is not None
        assert all(one is not None and abs(one - leader) <= WITHIN for one in captures)
    for name in NAMES[1:]:
        matched = {match[name] for _, match in found.matches}
        all_of = [one for one in log if one.name == name and one.time is not None]
        assert len(matched) + joiner.dropped[name] <= len(all_of)


def test_an_input_that_goes_back_begins_anew() -> None:
    """A recording that is played again, or a stamp that was far in the future."""
    joiner = Joiner[str](("front", "wrist"), within=10, wait=25)
    joiner.add("front", 1000, "front of the first round", now=0)
    joiner.add("wrist", 1000, "wrist of the first round", now=0)
    assert joiner.next(0) is not None
    joiner.add("wrist", 1030, "left over", now=30)
    joiner.add("wrist", 100, "wrist of the second round", now=31)
    joiner.add("front", 100, "front of the second round", now=31)
    match = joiner.next(31)
    assert match is not None
    assert set(match.items.values()) == {"front of the second round", "wrist of the second round"}
    assert joiner.dropped == {"front": 0, "wrist": 1}


def test_memory_does_not_grow_without_the_leader() -> None:
    joiner = Joiner[int](("front", "wrist"), within=10, wait=25)
    for now in range(1000):
        joiner.add("wrist", now, now, now)
        assert joiner.next(now) is None
    assert joiner.dropped["wrist"] == 1000 - PATIENCE - 1
