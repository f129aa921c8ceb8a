"""Handshake between two links, without I/O."""

from __future__ import annotations

import random
from collections.abc import Callable

from hypothesis import given, strategies as st

from dora_daemon.link.protocol.handshake import LinkHandshake
from dora_daemon.link.protocol.hello import LinkHello

SECOND = 1_000_000_000


class World:
    """Two handshakes whose hellos may be lost."""

    def __init__(self, seed: int, loss: float) -> None:
        self.dice = random.Random(seed)
        self.loss = loss
        self.now = 0
        self.sides = [LinkHandshake(11), LinkHandshake(22)]
        self.pairs: list[set[tuple[int, int]]] = [set(), set()]

    def hello(self, side: int) -> LinkHello:
        us = self.sides[side]
        theirs = us.their_hello
        return LinkHello(
            machine=str(side),
            run_id="r",
            round=us.round,
            seen_round=us.their_round,
            count=us.count,
            seen_count=0 if theirs is None else theirs.count,
        )

    def step(self) -> None:
        self.now += 50_000_000
        for side, us in enumerate(self.sides):
            if us.hello_due(self.now, agreed=True):
                us.hello_sent(self.now)
                other = self.sides[1 - side]
                if self.dice.random() >= self.loss:
                    sent = self.hello(side).model_copy(update={"wants_answer": not us.seen})
                    _, fresh = other.receive(us.link_id, us.their_link, sent, self.now)
                    if fresh:
                        self.pairs[1 - side].add((other.round, us.round))

    def run_until(self, holds: Callable[[LinkHandshake], bool]) -> None:
        """Step until this holds for both sides."""
        for _ in range(2000):
            self.step()
            if all(map(holds, self.sides)):
                return
        raise AssertionError("it never holds")


@given(st.integers(0, 10_000), st.floats(0, 0.7))
def test_both_sides_confirm_each_round_whatever_is_lost(seed: int, loss: float) -> None:
    world = World(seed, loss)
    for _ in range(4):
        world.sides[world.dice.randrange(2)].begin_round()
        world.run_until(lambda side: side.confirmed)
        a, b = world.sides
        assert (a.round, b.round) in world.pairs[0]
        assert (b.round, a.round) in world.pairs[1]


def test_a_silent_peer_is_noticed() -> None:
    world = World(1, 0)
    world.run_until(lambda side: side.confirmed)
    assert not world.sides[0].silent(world.now)
    assert world.sides[0].silent(world.now + 20_000_000_000)


def test_the_time_without_an_answer_begins_with_each_round() -> None:
    known = LinkHandshake(1)
    assert not known.unanswered(SECOND)
    assert known.unanswered(20 * SECOND)
    known.begin_round()
    assert not known.unanswered(21 * SECOND)


@given(st.integers(0, 10_000), st.floats(0, 0.7))
def test_a_change_is_seen_whatever_is_lost_and_then_nothing_more_is_sent(
    seed: int, loss: float
) -> None:
    world = World(seed, loss)
    for _ in range(4):
        world.sides[world.dice.randrange(2)].hello_changed()
        world.run_until(lambda side: side.seen)
    for _ in range(20):
        world.step()
    counts = [side.count for side in world.sides]
    for _ in range(20):
        world.step()
    assert [side.count for side in world.sides] == counts
