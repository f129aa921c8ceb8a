"""What is on the way of a stream: windows, order, gaps, acquaintance and clocks; no I/O."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from dora_daemon.link.protocol.clocks import ClockOffset
from dora_daemon.link.protocol.handshake import Acquaintance
from dora_daemon.link.protocol.hello import Entering, Greeting, Leaving, disagreement
from dora_daemon.link.protocol.windows import ReceiveOrder, SendWindow


def test_a_window_is_open_until_it_is_full_in_messages_or_bytes() -> None:
    window: SendWindow[str] = SendWindow(3, 100)
    for number in (1, 2, 3):
        assert window.open
        window.add(number, 10, "x")
    assert not window.open
    assert window.acknowledge(1) == 1
    assert window.open
    window.add(9, 500, "large")
    assert not window.open
    assert window.acknowledge(8) == 2
    assert not window.open
    assert window.acknowledge(9) == 1
    assert window.open
    assert window.bytes_out == 0
    window.add(10, 10_000, "a message larger than the window goes alone")
    assert not window.open


def test_what_is_sent_again_names_the_message_before_it() -> None:
    window: SendWindow[str] = SendWindow(10, 100, last=4)
    for number in (5, 8, 9):
        window.add(number, 1, str(number))
    assert list(window.after(5)) == [(8, 5, "8"), (9, 8, "9")]
    assert window.given_up == 4
    assert window.acknowledge(window.last) == 3
    assert window.given_up == 9


@given(st.integers(0, 1000), st.integers(2, 30))
def test_any_order_of_lanes_becomes_the_senders_order(seed: int, count: int) -> None:
    dice = random.Random(seed)
    numbers = sorted(dice.sample(range(1, 200), count))
    frames = list(zip(numbers, [0, *numbers], strict=False))
    # Lanes keep their own order.
    lanes: list[list[tuple[int, int]]] = [[], [], []]
    for frame in frames:
        dice.choice(lanes).append(frame)
    order: ReceiveOrder[int] = ReceiveOrder()
    got = []
    while any(lanes):
        sequence, previous = dice.choice([lane for lane in lanes if lane]).pop(0)
        got += [number for number, _ in order.accept(sequence, previous, sequence)]
        if dice.random() < 0.2:
            assert order.accept(sequence, previous, sequence) == []
    assert got == numbers
    assert len(order) == 0
    assert order.lost == 0


def test_a_gap_is_counted_when_a_round_says_that_nothing_will_fill_it() -> None:
    order: ReceiveOrder[str] = ReceiveOrder()
    assert order.accept(1, 0, "a") == [(1, "a")]
    assert order.accept(5, 4, "e") == []
    order.begin_round(1)
    assert (order.lost, order.last, len(order)) == (0, 1, 0)
    order.begin_round(4)
    assert (order.lost, order.last) == (3, 4)
    assert order.accept(5, 4, "e") == [(5, "e")]


class World:
    """Two acquaintances whose greetings may be lost."""

    def __init__(self, seed: int, loss: float) -> None:
        self.dice = random.Random(seed)
        self.loss = loss
        self.now = 0
        self.sides = [Acquaintance(11), Acquaintance(22)]
        self.pairs: list[set[tuple[int, int]]] = [set(), set()]

    def greeting(self, side: int) -> Greeting:
        us = self.sides[side]
        return Greeting(
            machine=str(side), run_id="r", round=us.round, seen_round=us.their_round, said=self.now
        )

    def step(self) -> None:
        self.now += 50_000_000
        for side, us in enumerate(self.sides):
            if us.greeting_due(self.now, agreed=True):
                us.greeted(self.now)
                other = self.sides[1 - side]
                if self.dice.random() >= self.loss:
                    said = self.greeting(side).model_copy(update={"wants_answer": not us.confirmed})
                    _, fresh = other.hear(us.link, us.their_link, said, self.now)
                    if fresh:
                        self.pairs[1 - side].add((other.round, us.round))


@given(st.integers(0, 10_000), st.floats(0, 0.7))
def test_both_confirm_each_round_whatever_is_lost(seed: int, loss: float) -> None:
    world = World(seed, loss)
    for _ in range(4):
        world.sides[world.dice.randrange(2)].begin_round()
        for _ in range(2000):
            world.step()
            if all(side.confirmed for side in world.sides):
                break
        assert all(side.confirmed for side in world.sides)
        a, b = world.sides
        assert (a.round, b.round) in world.pairs[0]
        assert (b.round, a.round) in world.pairs[1]


def test_silence_is_noticed() -> None:
    world = World(1, 0)
    while not all(side.confirmed for side in world.sides):
        world.step()
    assert not world.sides[0].silent(world.now)
    assert world.sides[0].silent(world.now + 20_000_000_000)


def test_lists_that_differ_are_named() -> None:
    leaving = Leaving(number=1, node="n", output="o", given_up=0)
    entering = Entering(node="n", output="o", life="", accepted=0, stored=0, listening=True)
    a = Greeting(machine="a", run_id="1", round=1, leaving=(leaving,))
    b = Greeting(machine="b", run_id="1", round=1, entering=(entering,))
    assert disagreement(a, b) is None
    assert disagreement(b, a) is None
    other = b.model_copy(update={"entering": ()})
    assert disagreement(a, other) == "n/o is not expected there"
    assert disagreement(other, a) == "n/o is not expected here"
    assert disagreement(a.model_copy(update={"leaving": ()}), b) == "n/o is not sent from here"


def test_the_clock_of_the_shortest_round_trip_is_believed() -> None:
    clock = ClockOffset()
    assert clock.to_ours(123, 1000) == 1000
    clock.answered(
        0, 1000, their_monotonic=5_000_900, their_wall=9_000_900, wall_less_monotonic=4_000_000
    )
    clock.answered(
        2000, 2010, their_monotonic=5_002_005, their_wall=9_002_005, wall_less_monotonic=4_000_000
    )
    assert clock.monotonic_ns == 5_000_000
    assert clock.wall_ns == 5_000_000
    assert clock.to_ours(5_003_000, 10_000) == 3_000
    assert clock.to_ours(5_030_000, 10_000) == 10_000


def test_the_round_trip_shown_is_the_median_of_the_last_answers() -> None:
    clock = ClockOffset()

    def answered(*round_trips: int) -> int | None:
        for taken in round_trips:
            clock.answered(
                0, taken, their_monotonic=taken // 2, their_wall=0, wall_less_monotonic=0
            )
        return clock.round_trip_ns

    assert answered(900) == 900
    assert answered(100, 500) == 500
    assert answered(*[700] * 13) == 700
    assert answered(*[300] * 16) == 300, "earlier answers no longer count"


def answer(clock: ClockOffset, at: int, trip: int, *, monotonic: int, wall: int) -> None:
    """One answer: the peer's clocks are ahead by ``monotonic`` and ``wall``; ours are equal."""
    middle = at + trip // 2
    clock.answered(
        at,
        at + trip,
        their_monotonic=middle + monotonic,
        their_wall=middle + wall,
        wall_less_monotonic=0,
    )


def test_a_wall_clock_that_is_set_counts_from_the_next_answer_on() -> None:
    clock = ClockOffset()
    answer(clock, 0, 10, monotonic=70, wall=-50_000_000)
    assert clock.wall_ns == -50_000_000
    answer(clock, 1000, 400, monotonic=70, wall=2)
    assert clock.monotonic_ns == 70
    assert clock.wall_ns == 2


def test_a_machine_that_slept_is_measured_anew() -> None:
    clock = ClockOffset()
    answer(clock, 0, 10, monotonic=0, wall=0)
    answer(clock, 1000, 400, monotonic=-9000, wall=0)
    assert clock.monotonic_ns == -9000
    assert clock.round_trip_ns == 400
    assert clock.wall_ns == 0
