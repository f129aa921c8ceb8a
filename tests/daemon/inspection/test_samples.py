"""Limits of memory, rate and size; dropped messages are counted."""

from __future__ import annotations

from dora_daemon.inspection.samples import MAX_PER_SECOND, MAX_WAITING, Pace, Samples


def test_messages_are_in_order_of_sending() -> None:
    samples = Samples(1000)
    samples.add("a/x", "second", 2)
    samples.add("b/y", "first", 1)
    assert samples.take().samples == ("first", "second")
    assert not samples


def test_oldest_messages_are_dropped_and_counted() -> None:
    samples = Samples(1_000_000)
    for number in range(MAX_WAITING + 5):
        samples.add("a/x", str(number), number)
    update = samples.take()
    assert update.samples[0] == "5"
    assert len(update.samples) == MAX_WAITING
    assert update.dropped == {"a/x": 5}
    assert not samples


def test_size_is_limited() -> None:
    samples = Samples(100)
    for number in range(3):
        samples.add("a/x", "y" * 80, number)
    update = samples.take()
    assert update.samples == ("y" * 80,)
    assert update.dropped == {"a/x": 2}


def test_a_long_message_is_sent_in_pieces() -> None:
    samples = Samples(100)
    samples.add("a/x", "first", 1)
    samples.add("a/x", "z" * 250, 2)
    assert not samples.admits(10.0)  # nothing is decoded until all of it was taken
    updates = [samples.take() for _ in range(4)]
    assert [update.samples for update in updates] == [("first",), (), (), ()]
    assert [len(update.piece) for update in updates] == [0, 100, 100, 50]
    assert [update.more for update in updates] == [False, True, True, False]
    assert not samples
    assert samples.admits(11.0)


def test_rate_of_decoded_messages_is_limited() -> None:
    samples = Samples(1000)
    burst = sum(samples.admits(10.0) for _ in range(5000))
    assert burst == MAX_PER_SECOND // 4
    wanted = sum(samples.admits(10.0 + step / 1000) for step in range(1, 1001) for _ in range(10))
    assert abs(wanted - MAX_PER_SECOND) <= 1


def test_long_messages_use_up_the_byte_rate() -> None:
    samples = Samples(10**9)
    taken = 0
    while samples.admits(10.0):
        samples.add("a/x", "y" * 200_000, taken)
        taken += 1
    assert taken == 6  # a quarter of 4 MiB
    assert samples.admits(10.5)


def test_repeated_note_is_ignored() -> None:
    samples = Samples(1000)
    for _ in range(3):
        samples.note("broken")
    assert samples.take().notes == ("broken",)
    samples.note("broken")
    assert not samples


def test_a_viewer_chooses_the_rate_of_each_output() -> None:
    pace = Pace(5)
    admitted = [tick / 30 for tick in range(90) if pace.admits("camera", tick / 30)]
    assert len(admitted) == 15
    assert pace.admits("arm", 0.0)
    assert not pace.admits("arm", 0.1)
    assert pace.admits("arm", 100.0)  # a pause is not made up for
    assert not pace.admits("arm", 100.1)


def test_without_a_rate_all_messages_are_admitted() -> None:
    assert all(Pace(None).admits("camera", 0.0) for _ in range(10))


def test_costly_messages_are_admitted_less_often() -> None:
    pace = Pace(30)
    assert pace.admits("camera", 10.0)
    pace.spent("camera", 10.2, 0.2)  # a quarter of the time: the next one 0.6 s later
    assert not pace.admits("camera", 10.7)
    assert pace.admits("camera", 10.9)
