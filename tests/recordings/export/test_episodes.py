"""Frames and episodes of a dataset."""

from __future__ import annotations

import random

from hypothesis import given, strategies as st

from dora_recordings.export.episodes import (
    CommandMessage,
    EpisodeSpan,
    FrameGrid,
    frame_rate,
    spans,
    stretches,
)

SECOND = 1_000_000_000


def test_commands_begin_and_end_episodes() -> None:
    commands = [
        CommandMessage(10, "Start", "pick"),
        CommandMessage(20, "stop"),
        CommandMessage(30, "start"),
        CommandMessage(40, "start"),
        CommandMessage(50, "discard"),
        CommandMessage(60, "hello"),
        CommandMessage(70, "s"),
    ]
    found, unknown = spans(commands, 100, "default")
    assert found == [
        EpisodeSpan(10, 20, "pick"),
        EpisodeSpan(30, 40, "default"),
        EpisodeSpan(70, 100, "default"),
    ]
    assert unknown == ["hello"]


def test_stretches_of_one_value() -> None:
    episodes = [EpisodeSpan(10, 50, "a"), EpisodeSpan(60, 90, "b")]
    values = [(5, "human"), (20, "policy"), (30, "policy"), (40, "human"), (80, "policy")]
    assert stretches(episodes, values) == {
        "human": [
            EpisodeSpan(10, 20, "a", handed_over=True),
            EpisodeSpan(40, 50, "a"),
            EpisodeSpan(60, 80, "b", handed_over=True),
        ],
        "policy": [EpisodeSpan(20, 40, "a", handed_over=True), EpisodeSpan(80, 90, "b")],
    }
    assert stretches(episodes, [(70, "human")]) == {"human": [EpisodeSpan(70, 90, "b")]}
    assert stretches(episodes, []) == {}


@given(
    st.lists(st.tuples(st.integers(0, 100), st.integers(1, 20)), max_size=5),
    st.lists(st.tuples(st.integers(0, 100), st.sampled_from("xyz")), max_size=12),
)
def test_each_moment_is_in_the_stretch_of_the_value_before_it(
    spans: list[tuple[int, int]], values: list[tuple[int, str]]
) -> None:
    episodes = [EpisodeSpan(start, start + length, "t") for start, length in spans]
    values = sorted({time: (time, value) for time, value in values}.values())
    found = stretches(episodes, values)
    for moment in range(125):
        now = [value for time, value in values if time <= moment][-1:]
        expected = now * sum(one.start <= moment < one.end for one in episodes)
        inside = [
            value
            for value, parts in found.items()
            for part in parts
            if part.start <= moment < part.end
        ]
        assert inside == expected


def test_the_frame_rate_is_the_typical_one() -> None:
    times = [0, 33_000_000, 67_000_000, 100_000_000, 500_000_000]
    assert frame_rate(times) == 30
    assert frame_rate([5]) is None
    assert frame_rate([5, 5]) is None


def test_late_messages_in_bursts_do_not_change_the_frame_rate() -> None:
    """A first array took a second, then ten ticks came at once."""
    period = 1e9 / 30
    chance = random.Random(3)
    for stalls in ([30], [30, 31, 60], [0]):
        times, ready = [], 0.0
        for tick in range(90):
            ready = max(ready, tick * period)
            if tick in stalls:
                ready += 1e9
            if ready - tick * period < 10 * period:
                times.append(int(ready + chance.uniform(0, 3e6)))
            ready += 1e5
        assert frame_rate(times) == 30


def test_a_timer_decides_about_the_frame_rate() -> None:
    times = [number * 36_000_000 for number in range(30)]
    assert frame_rate(times) == 28
    assert frame_rate(times, [33_333_333]) == 30
    assert frame_rate(times, [1_000_000_000]) == 28


def test_frames_have_measured_times_or_repeat_the_one_before() -> None:
    grid = FrameGrid(10, 0)
    assert grid.place(0) == [0.0]
    assert grid.place(int(0.104 * SECOND)) == [0.1]
    assert grid.place(int(0.13 * SECOND)) is None
    assert grid.place(int(0.395 * SECOND)) == [0.2, 0.3, 0.4]
    assert grid.frames == 5


@given(st.lists(st.integers(0, 100 * SECOND)), st.integers(1, 200))
def test_each_frame_is_at_its_place(times: list[int], rate: int) -> None:
    grid = FrameGrid(rate, 0)
    found: list[float] = []
    for time in sorted(times):
        found += grid.place(time) or []
    assert len(found) == grid.frames
    assert found == [place / rate for place in range(len(found))]
