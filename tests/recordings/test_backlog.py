"""Messages between the threads of a recorder."""

from __future__ import annotations

from collections import Counter

from dora_daemon.inspection.queue_reader import Sequences
from dora_recordings.arrow_messages import RecordedMessage
from dora_recordings.writing import WriteBacklog


def sent(topic: str, at: int, size: int = 10) -> RecordedMessage:
    return RecordedMessage(topic, "uint8", b"", at, at, at, bytes(size))


def test_messages_are_taken_in_the_order_of_sending() -> None:
    backlog = WriteBacklog(1000, Counter[str]())
    for at in (3, 1, 2):
        backlog.add(sent("a/b", at))
    assert [one.log_time for one in backlog.take()] == [1, 2, 3]
    assert not backlog
    assert backlog.take() == []


def test_a_full_backlog_drops_and_counts_the_oldest() -> None:
    lost = Counter[str]()
    backlog = WriteBacklog(25, lost)
    for at, topic in enumerate(("a/b", "c/d", "a/b", "a/b")):
        backlog.add(sent(topic, at))
    assert [one.log_time for one in backlog.take()] == [2, 3]
    assert lost == {"a/b": 1, "c/d": 1}


def test_one_message_larger_than_the_backlog_is_kept() -> None:
    lost = Counter[str]()
    backlog = WriteBacklog(25, lost)
    backlog.add(sent("a/b", 1, size=100))
    assert len(backlog.take()) == 1
    assert lost == {}


def test_gaps_between_sequence_numbers_are_lost_messages() -> None:
    sequences = Sequences()
    assert [sequences.missed("a/b", number) for number in (1, 2, 5, 6)] == [0, 0, 2, 0]
    assert sequences.missed("c/d", 4) == 3  # the first three were never read
