"""Reading a log continues without gap or repetition; frames of a page are checked."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from dora_cli.ui.streams import LATE_SECONDS, PAGE_FRAMES, LogPosition


def line(second: int, text: str, node: str = "camera") -> str:
    entry = {"ts": f"2026-01-01T00:00:{second:02}.000Z", "node": node, "msg": text, "level": "info"}
    return json.dumps(entry)


def texts(position: LogPosition, *lines: str) -> list[str]:
    return [entry["msg"] for entry in position.advance(lines)]


def test_first_the_last_lines_are_requested() -> None:
    position = LogPosition(tail=100)
    assert position.filter("warn").tail == 100
    assert position.filter("warn").level == "warn"
    assert position.filter("warn").since is None


def test_after_a_lost_connection_known_lines_are_skipped() -> None:
    position = LogPosition(tail=100)
    assert texts(position, line(1, "a"), line(2, "b"), line(2, "c")) == ["a", "b", "c"]
    again = position.filter("stdout")
    assert again.tail is None
    assert again.since == 1767225602 - LATE_SECONDS
    repeated = (line(1, "a"), line(2, "b"), line(2, "c"), line(2, "d"), line(3, "e"))
    assert texts(position, *repeated) == ["d", "e"]


def test_late_lines_of_another_machine_are_kept() -> None:
    position = LogPosition(tail=100)
    texts(position, line(9, "a"))
    position.filter("stdout")
    assert texts(position, line(5, "late", node="arm"), line(9, "a")) == ["late"]


def test_repeated_lines_of_one_moment_are_shown_before_a_loss() -> None:
    position = LogPosition(tail=100)
    assert texts(position, line(1, "a"), line(1, "a")) == ["a", "a"]


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"msg": "no time"}', '{"ts": "x", "msg": ""}'])
def test_malformed_lines_are_ignored(broken: str) -> None:
    assert LogPosition(tail=1).advance((broken,)) == []


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "{}",
        '{"id": 1, "open": "shell"}',
        '{"id": 1, "open": "logs", "dataflow": "../etc"}',
        '{"id": 1, "open": "logs", "dataflow": "8a1c7a86-5b3c-4dd2-9f3e-6c1a3a9b1c11", "tail": -1}',
        '{"id": 1, "open": "output", "dataflow": "x", "topic": "a/b", "rate": 5}',
    ],
)
def test_invalid_frames_are_refused(frame: str) -> None:
    with pytest.raises(ValidationError):
        PAGE_FRAMES.validate_json(frame)
