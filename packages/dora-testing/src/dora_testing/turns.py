"""Choice of the node that continues next, and of the time."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import count

from dora_testing.participants import Answer, Participant
from dora_testing.schedule import Schedule

FIRST_ARRIVAL = 1 << 20
"""First order number of arrived messages; lower ones are places of nodes, which go first."""


class Turns:
    """The nodes that may be able to go on: `check_at` and `check_order` of each."""

    def __init__(self, time: Schedule, nodes: Iterable[Participant], shuffle: int | None) -> None:
        self._time = time
        self._nodes = tuple(nodes)
        self._random = None if shuffle is None else random.Random(shuffle)
        self._order = count(FIRST_ARRIVAL)

    def ready(self) -> list[Participant]:
        """Return the nodes to check now, in the order in which they became ready, or shuffled."""
        now = self._time.now_ns
        ready = [n for n in self._nodes if n.check_at is not None and n.check_at <= now]
        if self._random is not None:
            self._random.shuffle(ready)
        else:
            ready.sort(key=lambda node: (node.check_at, node.check_order))
        return ready

    def times(self) -> list[int]:
        """Return when nodes may be able to go on."""
        return [node.check_at for node in self._nodes if node.check_at is not None]

    def check(self, node: Participant, at: int | None = None) -> None:
        """Check whether a node can continue, now or at a time."""
        now = self._time.now_ns
        if node.check_at is not None and node.check_at <= now and node.answer is None:
            return
        node.check_at = now if at is None else at
        node.check_order = next(self._order) if at is None else node.place

    def arrived(self, node: Participant) -> None:
        """Note that something waits for a node, unless it is busy or asleep."""
        if node.answer is None and node.request is not None:
            self.check(node)

    def answer_later(self, node: Participant, answer: Answer, at: int) -> None:
        """Let a node go on with an answer at a time."""
        node.answer = answer
        node.check_at = None
        self.check(node, at)
