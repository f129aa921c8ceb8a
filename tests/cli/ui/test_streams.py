"""Frames of a page are checked; malformed log lines are ignored."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from dora_cli.ui.streams import PAGE_FRAMES, parsed


def test_malformed_log_lines_are_ignored() -> None:
    good = '{"ts": "2026-01-01T00:00:00.000Z", "msg": "a"}'
    broken = ("", "{", "[]", "7", '{"msg": "no time"}', '{"ts": "x"}')
    assert parsed((*broken, good)) == [{"ts": "2026-01-01T00:00:00.000Z", "msg": "a"}]


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
