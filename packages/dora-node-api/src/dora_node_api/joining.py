"""Matching of messages of several inputs by their time; pure.

Each message has the time of its capture. There is one match for each message of the first input
(the leader), with the nearest message of each other input. The rules:

- A message matches if its capture is at most `within` from that of the leader's message. Of two
  that are equally near, the earlier one is taken. A message may be in several matches.
- A complete match waits until no nearer message can come, because a later one has arrived or the
  input has ended, but at most `within` after the arrival of the leader's message.
- An incomplete match waits for `within + wait` after that arrival. It ends before if an input has
  passed the time of the leader's message without a match.
- Other messages wait for a leader's message for `within + wait` after their arrival.
- Messages that no match can contain any more are dropped and counted.
- An input whose capture times go back by more than `within + wait` begins anew: its waiting
  messages are dropped.

Times are nanoseconds: those of captures of one clock, those of arrivals of another one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Message(Generic[T]):
    time: int
    """Time of the capture."""
    arrived: int
    item: T
    matched: bool = False


_time = attrgetter("time")


@dataclass(frozen=True, slots=True)
class Match(Generic[T]):
    """Messages of the same instant, by input; the leader's is the first."""

    items: Mapping[str, T]
    time: int
    """Capture of the leader's message."""
    spread: int
    """Time from the first to the last capture."""


@dataclass(frozen=True, slots=True)
class Missing:
    """The input without a match for a message of the leader."""

    name: str
    distance: int | None
    """Time by which the nearest capture is later; None: nothing has arrived."""
    silent: int
    """Time since the last arrival, or since the leader's message if nothing has arrived."""
    ended: bool


class Joiner(Generic[T]):
    """Matches messages of several inputs."""

    def __init__(self, names: Sequence[str], *, within: int, wait: int) -> None:
        self.leader, *others = names
        self._within = within
        self._patience = within + wait
        self._leaders: deque[_Message[T]] = deque()
        """Messages without a match yet, in order of arrival."""
        self._others: dict[str, list[_Message[T]]] = {name: [] for name in others}
        """Messages in order of capture."""
        self._newest: dict[str, int] = {}
        """Latest capture by input."""
        self._arrived: dict[str, int] = {}
        """Last arrival by input."""
        self._ended: set[str] = set()
        self._decided: int | None = None
        """Capture of the leader's message that was decided last."""
        self.due: int | None = None
        """Time at which `next` may return a match although nothing arrives; None: never."""
        self.dropped = dict.fromkeys(names, 0)
        """Messages that were in no match, by input."""
        self.missing: Missing | None = None
        """Why the leader's message that was dropped last had no match."""

    def add(self, name: str, time: int, item: T, now: int) -> None:
        """Add a message that was captured at ``time`` and has arrived at ``now``."""
        message = _Message(time, now, item)
        newest = self._newest.get(name, time)
        if time < newest - self._patience:
            self._begin_anew(name)
            newest = time
        self._newest[name] = max(newest, time)
        self._arrived[name] = now
        if name == self.leader:
            self._leaders.append(message)
            return
        waiting = self._others[name]
        place = bisect_left(waiting, time, key=_time)
        if place < len(waiting) and waiting[place].time == time:
            self._drop(name, waiting.pop(place))
        waiting.insert(place, message)

    def end(self, *names: str) -> None:
        """Note that nothing follows on these inputs."""
        self._ended.update(names)

    def continues(self, name: str) -> None:
        """Note that messages of this input follow after all."""
        self._ended.discard(name)

    def next(self, now: int) -> Match[T] | None:
        """Return the next match, None if there is none yet."""
        while self._leaders:
            self._prune(now)
            leader = self._leaders[0]
            found = self._find(leader, now)
            if self.due is not None:
                return None
            self._leaders.popleft()
            self._decided = leader.time
            if found is not None:
                return self._match(leader, found)
            self._drop(self.leader, leader)
        self.due = None
        self._prune(now)
        return None

    def _find(self, leader: _Message[T], now: int) -> dict[str, _Message[T]] | None:
        """Return the other messages of a match, None if it is impossible.

        Sets when to look again: None if the result is final.
        """
        found: dict[str, _Message[T]] = {}
        final, self.due = True, None
        missing = None
        for name, waiting in self._others.items():
            passed = name in self._ended or self._newest.get(name, leader.time - 1) >= leader.time
            near = self._nearest(waiting, leader.time)
            final = final and passed
            if near is not None:
                found[name] = near
                continue
            missing = name
            if passed:
                self.missing = self._missing(name, leader, now)
                return None
        if missing is None and final:
            return found
        due = leader.arrived + (self._within if missing is None else self._patience)
        if now < due:
            self.due = due
            return None
        if missing is None:
            return found
        self.missing = self._missing(missing, leader, now)
        return None

    def _nearest(self, waiting: list[_Message[T]], time: int) -> _Message[T] | None:
        place = bisect_right(waiting, time, key=_time)
        around = waiting[max(0, place - 1) : place + 1]
        near = min(around, key=lambda message: abs(message.time - time), default=None)
        return None if near is None or abs(near.time - time) > self._within else near

    def _match(self, leader: _Message[T], found: Mapping[str, _Message[T]]) -> Match[T]:
        for message in found.values():
            message.matched = True
        times = [leader.time, *(message.time for message in found.values())]
        items = {name: message.item for name, message in found.items()}
        return Match({self.leader: leader.item, **items}, leader.time, max(times) - min(times))

    def _missing(self, name: str, leader: _Message[T], now: int) -> Missing:
        distance = self._distance(name, leader.time)
        silent = now - self._arrived.get(name, leader.arrived)
        return Missing(name, distance, silent, name in self._ended)

    def _distance(self, name: str, time: int) -> int | None:
        """Return by how much the nearest known capture of an input is later than ``time``."""
        times = [message.time for message in self._others[name]]
        if (newest := self._newest.get(name)) is not None:
            times.append(newest)
        return min((known - time for known in times), key=abs, default=None)

    def _prune(self, now: int) -> None:
        """Drop messages that no match can contain any more."""
        leader = self._leaders[0] if self._leaders else None
        oldest = (now if leader is None else leader.arrived) - self._patience
        time = self._decided if leader is None else leader.time
        for name, waiting in self._others.items():
            while waiting and (
                waiting[0].arrived < oldest
                or (time is not None and waiting[0].time < time - self._within)
                or (time is not None and len(waiting) > 1 and waiting[1].time <= time)
            ):
                self._drop(name, waiting.pop(0))

    def _begin_anew(self, name: str) -> None:
        waiting = self._leaders if name == self.leader else self._others[name]
        for message in waiting:
            self._drop(name, message)
        waiting.clear()
        if name == self.leader:
            self._decided = None

    def _drop(self, name: str, message: _Message[T]) -> None:
        self.dropped[name] += not message.matched
