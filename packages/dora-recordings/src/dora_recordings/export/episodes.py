"""Selection of the messages that become frames of episodes of a LeRobot dataset; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from statistics import fmean, median

START = frozenset({"start", "begin", "s", "true"})
END = frozenset({"stop", "end", "save", "e", "false"})
DISCARD = frozenset({"discard", "cancel", "rerecord"})
"""Words of a command, in any case."""
TIMER_TOLERANCE = 1.25
"""Factor by which messages may be more or less frequent than the ticks that trigger them."""


@dataclass(frozen=True, slots=True)
class CommandMessage:
    """A message of the command output."""

    time: int
    word: str
    task: str | None = None
    """Value of the metadata `task`."""


@dataclass(frozen=True, slots=True)
class EpisodeSpan:
    """An episode, from ``start`` to ``end`` (exclusive), in nanoseconds."""

    start: int
    end: int
    task: str
    handed_over: bool = False
    """Whether the span ends with the action of another source."""


def spans(
    commands: Iterable[CommandMessage], end: int, task: str
) -> tuple[list[EpisodeSpan], list[str]]:
    """Return the episodes that commands begin and end, and the words that are not commands.

    A start ends the episode before it; the last one ends with the recording, at ``end``.
    ``task``: of episodes whose start names none.
    """
    found: list[EpisodeSpan] = []
    unknown: list[str] = []
    begun: tuple[int, str] | None = None
    for command in commands:
        word = command.word.strip().lower()
        if word in START or word in END:
            if begun is not None:
                found.append(EpisodeSpan(begun[0], command.time, begun[1]))
            begun = (command.time, command.task or task) if word in START else None
        elif word in DISCARD:
            begun = None
        else:
            unknown.append(command.word)
    if begun is not None:
        found.append(EpisodeSpan(begun[0], end, begun[1]))
    return found, unknown


def stretches(
    episodes: Iterable[EpisodeSpan], values: Sequence[tuple[int, str]]
) -> dict[str, list[EpisodeSpan]]:
    """Return the parts of episodes in which a value stays the same, by value.

    ``values``: times and values in the order of time. Parts begin with the first value.
    """
    begins = [next(ones) for _, ones in groupby(values, key=lambda one: one[1])]
    ends = [time for time, _ in begins[1:]]
    found: dict[str, list[EpisodeSpan]] = {}
    for episode in episodes:
        for (begin, value), end in zip(begins, [*ends, episode.end], strict=False):
            start, last = max(begin, episode.start), min(end, episode.end)
            if start < last:
                part = EpisodeSpan(start, last, episode.task, last < episode.end)
                found.setdefault(value, []).append(part)
    return found


def frame_rate(times: Sequence[int], timers: Iterable[int] = ()) -> int | None:
    """Return the whole number of frames per second of times in nanoseconds.

    It is computed from the intervals around the median, or from a timer with about that interval:
    late messages arrive in bursts, and some are missing, so the mean of all would be wrong.
    ``timers``: intervals in nanoseconds. None for fewer than two times.
    """
    intervals = [after - before for before, after in pairwise(times) if after > before]
    if not intervals:
        return None
    middle = median(intervals)
    typical = fmean(one for one in intervals if abs(one - middle) <= middle / 2)
    for timer in timers:
        if 1 / TIMER_TOLERANCE < typical / timer < TIMER_TOLERANCE:
            return max(1, round(1e9 / timer))
    return max(1, round(1e9 / typical))


@dataclass(slots=True)
class FrameGrid:
    """Times of the frames of one episode.

    Frame N is at N / rate seconds: LeRobot merges only such datasets. Each message is assigned to
    the nearest frame time; a time without a message repeats the previous frame, and of several
    messages at one time the first is used.
    """

    rate: int
    origin: int
    """Time of the first frame, in nanoseconds."""
    frames: int = 0

    def place(self, time: int) -> list[float] | None:
        """Return the frame times up to that of a message; None if its time is already used.

        All but the last time are for repetitions of the previous frame.
        """
        number = int((time - self.origin) / 1e9 * self.rate + 0.5)
        if number < self.frames:
            return None
        found = [place / self.rate for place in range(self.frames, number + 1)]
        self.frames = number + 1
        return found
