"""Send window and receive order of a stream."""

from __future__ import annotations

import random

from hypothesis import given, strategies as st

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


def test_a_resent_message_names_the_previous_one() -> None:
    window: SendWindow[str] = SendWindow(10, 100, last=4)
    for number in (5, 8, 9):
        window.add(number, 1, str(number))
    assert list(window.after(5)) == [(8, 5, "8"), (9, 8, "9")]
    assert window.given_up == 4
    assert window.acknowledge(window.last) == 3
    assert window.given_up == 9


@given(st.integers(0, 1000), st.integers(2, 30))
def test_any_order_of_priorities_becomes_the_order_of_the_sender(seed: int, count: int) -> None:
    dice = random.Random(seed)
    numbers = sorted(dice.sample(range(1, 200), count))
    frames = list(zip(numbers, [0, *numbers], strict=False))
    # Frames of one priority keep their order.
    priorities: list[list[tuple[int, int]]] = [[], [], []]
    for frame in frames:
        dice.choice(priorities).append(frame)
    order: ReceiveOrder[int] = ReceiveOrder()
    got = []
    while any(priorities):
        sequence, previous = dice.choice([queue for queue in priorities if queue]).pop(0)
        got += [number for number, _ in order.accept(sequence, previous, sequence)]
        if dice.random() < 0.2:
            assert order.accept(sequence, previous, sequence) == []
    assert got == numbers
    assert len(order) == 0
    assert order.lost == 0


def test_a_gap_counts_as_lost_when_a_round_gives_its_messages_up() -> None:
    order: ReceiveOrder[str] = ReceiveOrder()
    assert order.accept(1, 0, "a") == [(1, "a")]
    assert order.accept(5, 4, "e") == []
    order.begin_round(1)
    assert (order.lost, order.last, len(order)) == (0, 1, 0)
    order.begin_round(4)
    assert (order.lost, order.last) == (3, 4)
    assert order.accept(5, 4, "e") == [(5, "e")]
