"""What is logged about dropped messages."""

from __future__ import annotations

from dora_ros2.drops import Drops


def test_each_reason_is_logged_and_less_often_if_drops_go_on() -> None:
    drops = Drops()
    assert drops.add("a", 0) == "dropped a message: a"
    assert drops.add("b", 1) is None
    assert drops.due(9) is None
    assert drops.due(10) == "dropped a message: b"
    assert [drops.add(reason, 11) for reason in "aaabcd"] == [None] * 6
    assert drops.due(29) is None
    assert drops.due(30) == (
        "dropped 6 messages: 3 because a; 1 because b; 1 because c; 1 for other reasons"
    )
    assert drops.due(69) is None
    assert drops.due(70) is None
    assert drops.add("a", 71) == "dropped a message: a"
    assert drops.add("a", 80) is None
    assert drops.add("a", 81) == "dropped 2 messages: a"
    assert drops.rest() is None
    assert drops.total == 11


def test_lines_that_go_on_for_long() -> None:
    drops = Drops()
    lines = [text for second in range(3600) if (text := drops.add("full", second))]
    assert len(lines) == 16
    assert drops.rest() is not None
