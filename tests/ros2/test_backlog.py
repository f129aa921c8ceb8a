"""Items that wait, limited by number and bytes."""

from __future__ import annotations

from dora_ros2.backlog import MAX_BYTES, Backlog


def test_the_oldest_items_are_dropped() -> None:
    backlog: Backlog[int] = Backlog(3)
    assert [backlog.append(number, 1) for number in range(5)] == [0, 0, 0, 1, 1]
    assert list(backlog) == [2, 3, 4]
    assert (backlog.popleft(), len(backlog)) == (2, 2)
    backlog.clear()
    assert not backlog


def test_large_items() -> None:
    half = MAX_BYTES // 2
    backlog: Backlog[int] = Backlog(1000, always=2)
    assert [backlog.append(number, half) for number in range(3)] == [0, 0, 1]
    assert backlog.append(3, 2 * half) == 1, "two are kept of any size"
    assert list(backlog) == [2, 3]
    assert backlog.append(4, 1) == 1
    assert backlog.append(5, 1) == 1
    assert backlog.append(6, 1) == 0
    assert list(backlog) == [4, 5, 6]
