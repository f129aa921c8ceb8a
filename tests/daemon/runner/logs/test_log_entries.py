"""Structured entries, and lines in a stream of bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st

from dora_config.dataflow.sources import LogLevel
from dora_config.protocol.runner_events import LogLine, passes
from dora_daemon.runner.logs.log_entries import (
    CUT_MARK,
    MAX_LINE,
    OutputSplitter,
    as_level,
    entry_from_line,
    file_line,
    message_text,
)

TS = "2026-08-21T09:30:00.123Z"


def entry(text: str):  # type: ignore[no-untyped-def]
    return entry_from_line(text, node="n", stream="stdout", ts=TS)


def test_a_plain_line_has_the_level_stdout() -> None:
    assert (entry("hello").level, entry("hello").message) == ("stdout", "hello")


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "{not json}",
        "[1, 2]",
        '{"level": "info"}',
        '{"message": "x"}',
        '{"level": "shout", "message": "x"}',
        '{"level": 3, "message": "x"}',
        '{"level": "info", "message": 3}',
        '{"a": ' * 100_000 + "}",
    ],
)
def test_json_without_level_and_message_is_a_plain_line(text: str) -> None:
    assert entry(text).level == "stdout"
    assert entry(text).message == text


def test_a_structured_line() -> None:
    line = json.dumps(
        {
            "timestamp": "2026-01-02T03:04:05.678Z",
            "level": "WARNING",
            "node_id": "other",
            "message": "hot",
            "target": "motor",
            "file": "core.py",
            "line": 40,
            "fields": {"c": 1},
        }
    )
    found = entry(line)
    assert found.ts == "2026-01-02T03:04:05.678Z"
    assert (found.level, found.node, found.message) == ("warn", "n", "hot")
    assert (found.target, found.file, found.line) == ("motor", "core.py", 40)
    assert found.fields == {"c": 1}


def encoded(found: LogLine) -> str:
    """Return the message of an entry after it was encoded for followers and for nodes."""
    text = message_text(found, dataflow_id="df", daemon_id=None, build_id=None).encode()
    message: str = json.loads(text)["message"]
    assert json.loads(found.model_dump_json())["message"] == message
    return message


def test_half_of_a_surrogate_pair_is_replaced() -> None:
    found = entry(r'{"level":"error","message":"cut \ud83d, whole \ud83d\ude00, text \\ud83d"}')
    assert found.level == "error"
    assert encoded(found) == "cut ?, whole \N{GRINNING FACE}, text \\ud83d"


def test_a_message_with_a_path_that_is_not_utf8() -> None:
    found = LogLine(ts=TS, level="warn", message="cannot write /b\udcffd")
    text = message_text(found, dataflow_id="df", daemon_id=None, build_id=None)
    assert json.loads(text.encode())["message"] == "cannot write /b?d"


@pytest.mark.parametrize("depth", [300, 980, 985, 990, 100_000])
def test_json_that_is_nested_too_deeply_is_a_plain_line(depth: int) -> None:
    text = '{"level":"error","message":"x","fields":{"a":%s}}' % ("[" * depth + "]" * depth)
    assert entry(text).level == "stdout"
    assert encoded(entry(text)) == text


def test_the_shape_of_rust_tracing() -> None:
    found = entry('{"level":"INFO","fields":{"message":"hi","n":1},"target":"x"}')
    assert (found.level, found.message, found.fields) == ("info", "hi", {"n": 1})


def test_shapes_of_file_and_message() -> None:
    found = entry('{"level": "info", "message": "é", "target": "t"}')
    assert json.loads(file_line(found)) == {
        "ts": TS,
        "level": "info",
        "node": "n",
        "stream": "stdout",
        "msg": "é",
        "target": "t",
    }
    message = json.loads(message_text(found, dataflow_id="df", daemon_id=None, build_id=None))
    assert list(message) == [
        "build_id",
        "dataflow_id",
        "node_id",
        "daemon_id",
        "level",
        "target",
        "module_path",
        "file",
        "line",
        "message",
        "timestamp",
        "fields",
    ]
    assert (message["level"], message["message"]) == ("INFO", "é")
    plain = json.loads(message_text(entry("x"), dataflow_id="", daemon_id="", build_id=""))
    assert plain["level"] == "stdout"


@pytest.mark.parametrize(
    ("level", "wanted", "expected"),
    [
        ("stdout", None, True),
        ("stdout", "stdout", True),
        ("stdout", "info", False),
        ("error", "warn", True),
        ("info", "warn", False),
        ("trace", "stdout", True),
    ],
)
def test_levels(level: LogLevel, wanted: LogLevel | None, expected: bool) -> None:
    assert passes(level, wanted) is expected


def test_levels_of_others() -> None:
    assert as_level("CRITICAL") == "error"
    assert as_level("odd") == "info"


@given(
    lines=st.lists(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]))),
    cuts=st.lists(st.integers(1, 7)),
)
def test_lines_come_whole_however_the_bytes_are_cut(lines: list[str], cuts: list[int]) -> None:
    data = "".join(f"{line}\n" for line in lines).encode()
    splitter = OutputSplitter()
    found: list[str] = []
    for size in [*cuts, len(data) + 1]:
        found += splitter.feed(data[:size])
        data = data[size:]
    assert found == lines
    assert splitter.flush() == []


def test_what_comes_after_the_last_newline_is_a_line_at_the_end() -> None:
    splitter = OutputSplitter()
    assert splitter.feed(b"one\r\ntw") == ["one"]
    assert splitter.flush() == ["tw"]
    assert splitter.flush() == []


@pytest.mark.parametrize("piece", [1000, 10**7])
def test_a_line_past_a_megabyte_is_cut_with_a_mark(piece: int) -> None:
    data = b"x" * (3 * MAX_LINE) + b"\nnext\n"
    splitter = OutputSplitter()
    lines: list[str] = []
    for start in range(0, len(data), piece):
        lines += splitter.feed(data[start : start + piece])
    assert [len(line) for line in lines] == [MAX_LINE + len(CUT_MARK), 4]
    assert lines[0].endswith(CUT_MARK)


def test_invalid_utf8_is_replaced() -> None:
    assert OutputSplitter().feed(b"\xff\xfe\n") == ["��"]
