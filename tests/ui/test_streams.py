"""Frames of a page are checked; malformed log lines are ignored."""

from __future__ import annotations

import json
from typing import Any, NoReturn, cast

import anyio
import pytest
from pydantic import ValidationError

from dora_cli.coordinator.errors import CoordinatorUnreachable, RequestFailed
from dora_config.protocol.topics import TopicUpdate
from dora_ui import streams
from dora_ui.connection import CoordinatorConnection
from dora_ui.streams import (
    LONG_LINE,
    MAX_LONG,
    PAGE_FRAMES,
    LongMessages,
    OpenLogs,
    _objects,
    parsed,
    send_logs,
)


def test_malformed_log_lines_are_ignored() -> None:
    good = '{"ts": "2026-01-01T00:00:00.000Z", "msg": "a"}'
    broken = ("", "{", "[]", "7", '{"msg": "no time"}', '{"ts": "x"}', '{"ts": "x", "msg": 7}')
    assert parsed((*broken, good)) == [{"ts": "2026-01-01T00:00:00.000Z", "msg": "a"}]


def test_long_log_lines_are_cut() -> None:
    line = {"ts": "t", "msg": "m" * (LONG_LINE + 1), "node": "camera", "fields": {"a": [1]}}
    ((entry,)) = parsed((json.dumps(line),))
    assert entry.keys() == {"ts", "msg", "node"}
    assert entry["msg"].endswith(f"… (cut: {LONG_LINE + 1} characters)")
    assert len(entry["msg"]) < LONG_LINE + 50


def test_numbers_that_browsers_cannot_read_become_texts() -> None:
    line = '{"ts": "t", "msg": "m", "fields": {"a": 1e999, "b": NaN, "c": 1.5}}'
    ((entry,)) = parsed((line,))
    assert entry["fields"] == {"a": "1e999", "b": "NaN", "c": 1.5}


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


def test_pieces_become_a_message() -> None:
    long = LongMessages()
    assert long.take(1, TopicUpdate(samples=("a",))) == ("a",)
    assert long.take(1, TopicUpdate(piece="b", more=True)) == ()
    assert long.take(0, TopicUpdate(notes=("a note of the coordinator",))) == ()
    assert long.take(1, TopicUpdate(piece="c")) == ("bc",)
    assert long.take(1, TopicUpdate(samples=("d",))) == ("d",)


def test_pieces_of_a_broken_stream_are_ignored() -> None:
    long = LongMessages()
    assert long.take(1, TopicUpdate(piece="b", more=True)) == ()
    assert long.take(2, TopicUpdate(piece="c")) == ("c",)


def test_the_rest_of_a_message_that_a_late_viewer_does_not_get() -> None:
    long = LongMessages()
    assert long.take(1, TopicUpdate(piece='{"data": [1', more=True)) == ()
    torn = long.take(1, TopicUpdate(piece=" "))
    assert list(_objects(torn)) == []
    assert long.take(1, TopicUpdate(piece="c")) == ("c",)


def test_a_message_cannot_fill_the_memory() -> None:
    long, piece = LongMessages(), "x" * (MAX_LONG // 2)
    long.take(1, TopicUpdate(piece=piece, more=True))
    long.take(1, TopicUpdate(piece=piece, more=True))
    with pytest.raises(RequestFailed):
        long.take(1, TopicUpdate(piece="x", more=True))


class LostCoordinator:
    """It does not answer twice, has not found the dataflow then, and ends the stream at last."""

    def __init__(self) -> None:
        gone = CoordinatorUnreachable("no coordinator listens")
        self._errors = [gone, gone, RequestFailed("no dataflow", "not_found")]

    def open(self, _: object) -> NoReturn:
        raise self._errors.pop(0) if self._errors else RequestFailed("it has ended", "failed")


def test_a_lost_coordinator_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "RETRY_PAUSE", 0.0)
    sent: list[dict[str, Any]] = []

    async def send(frame: dict[str, Any]) -> None:
        sent.append(frame)

    wanted = OpenLogs(id=1, open="logs", dataflow="8a1c7a86-5b3c-4dd2-9f3e-6c1a3a9b1c11")
    anyio.run(send_logs, cast("CoordinatorConnection", LostCoordinator()), wanted, send)
    assert sent == [
        {"id": 1, "lost": "no coordinator listens"},
        {"id": 1, "ended": True, "problems": ["it has ended"]},
    ]
