"""What of a flood is shown, and that the rest is counted."""

from __future__ import annotations

from dora_daemon.inspection.samples import MOST_PER_SECOND, MOST_WAITING, Samples


def test_messages_come_in_the_order_in_which_they_were_sent() -> None:
    samples = Samples(1000)
    samples.add("a/x", "second", 2)
    samples.add("b/y", "first", 1)
    assert samples.take().samples == ("first", "second")
    assert not samples


def test_the_oldest_go_when_nobody_takes_them_and_are_counted() -> None:
    samples = Samples(1_000_000)
    for number in range(MOST_WAITING + 5):
        samples.add("a/x", str(number), number)
    news = samples.take()
    assert news.samples[0] == "5"
    assert len(news.samples) == MOST_WAITING
    assert news.dropped == {"a/x": 5}
    assert not samples


def test_bytes_are_bounded_but_one_message_always_stays() -> None:
    samples = Samples(100)
    for number in range(3):
        samples.add("a/x", "y" * 80, number)
    samples.add("a/x", "z" * 500, 3)
    news = samples.take()
    assert news.samples == ("z" * 500,)
    assert news.dropped == {"a/x": 3}


def test_more_than_anybody_reads_is_not_even_looked_at() -> None:
    samples = Samples(1000)
    burst = sum(samples.wants(10.0) for _ in range(5000))
    assert burst == MOST_PER_SECOND // 4
    wanted = sum(samples.wants(10.0 + step / 1000) for step in range(1, 1001) for _ in range(10))
    assert abs(wanted - MOST_PER_SECOND) <= 1


def test_long_messages_use_the_allowance_up() -> None:
    samples = Samples(10**9)
    taken = 0
    while samples.wants(10.0):
        samples.add("a/x", "y" * 200_000, taken)
        taken += 1
    assert taken == 6  # a quarter of 4 MiB
    assert samples.wants(10.5)


def test_a_remark_is_made_once() -> None:
    samples = Samples(1000)
    for _ in range(3):
        samples.note("broken")
    assert samples.take().notes == ("broken",)
    samples.note("broken")
    assert not samples
