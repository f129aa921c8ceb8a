"""Log files are read whole, in order, once, over rotations, in pieces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from dora_config.protocol.dataflow import LogFilter
from dora_daemon.agent.logs import files as log_files
from dora_daemon.agent.logs.files import NodeLogReader, PartLogReader, matches
from dora_daemon.runner.logs.log_files import LogFile


def entry(second: int, msg: str, level: str = "info", node: str = "n") -> str:
    ts = f"2026-08-21T09:30:{second:02}.000Z"
    facts = {"ts": ts, "level": level, "node": node, "stream": "stdout", "msg": msg}
    return json.dumps(facts)


def messages(log: PartLogReader) -> list[str]:
    """All that is there by now."""
    found: list[str] = []
    while chunk := log.next_chunk():
        found += [json.loads(line)["msg"] for line in chunk]
    return found


def part(*paths: Path, **wanted: object) -> PartLogReader:
    nodes = {path.stem: NodeLogReader(path) for path in paths}
    return PartLogReader(nodes, LogFilter.model_validate(wanted))


def write(path: Path, *lines: str) -> None:
    with path.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def test_rotated_files_come_first_and_nodes_are_merged_by_time(tmp_path: Path) -> None:
    a, b = tmp_path / "log_a.jsonl", tmp_path / "log_b.jsonl"
    write(tmp_path / "log_a.jsonl.2", entry(1, "a1"))
    write(tmp_path / "log_a.jsonl.1", entry(3, "a3"))
    write(a, entry(5, "a5"))
    write(b, entry(2, "b2"), entry(4, "b4"))
    log = part(a, b)
    assert messages(log) == ["a1", "b2", "a3", "b4", "a5"]
    log.close()


def test_filters_apply_before_the_tail(tmp_path: Path) -> None:
    path = tmp_path / "log_n.jsonl"
    write(path, entry(1, "low", "debug"), entry(2, "One", "warn"), entry(3, "two", "error"))
    write(path, entry(4, "three", "info"), "torn {", entry(5, "printed", "stdout"))
    log = part(path, level="warn", tail=1)
    assert messages(log) == ["two"]
    log.close()
    log = part(path, level="error", per_node={"n": "warn", "other": "debug"})
    assert messages(log) == ["One", "two"]
    log.close()
    log = part(path, grep="ONE")
    assert messages(log) == ["One"]
    log.close()
    log = part(path, since=1787304602.0, until=1787304603.0)
    assert messages(log) == ["One", "two"]
    log.close()


@given(
    texts=st.lists(st.text("ab\u00e9", max_size=40), max_size=30),
    parts=st.integers(1, 4),
    last=st.integers(0, 35),
    block=st.integers(1, 64),
)
def test_the_last_lines_are_read_from_the_end(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], parts: int, last: int, block: int
) -> None:
    path = tmp_path_factory.mktemp("logs") / "log_n.jsonl"
    size = max(1, -(-len(texts) // parts))
    pieces = [texts[start : start + size] for start in range(0, len(texts), size)]
    for number, piece in enumerate(reversed(pieces)):
        write(path.with_name(f"{path.name}.{number}") if number else path, *piece)
    whole, end = NodeLogReader(path), NodeLogReader(path)
    everything = list(whole.history())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_files, "BLOCK_BYTES", block)
        found = list(end.history(last=last))
    assert [line.text for line in everything] == texts
    assert found == everything[max(0, len(texts) - last) :]
    write(path, "later")
    assert list(end.new_lines()) == list(whole.new_lines())
    whole.close()
    end.close()


def test_a_tail_does_not_read_the_lines_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log_n.jsonl"
    write(path, *(entry(number % 60, f"line {number}") for number in range(5000)))
    read: list[str] = []

    def noted(line: str, wanted: LogFilter) -> bool:
        read.append(line)
        return matches(line, wanted)

    monkeypatch.setattr(log_files, "matches", noted)
    log = part(path, tail=2)
    assert messages(log) == ["line 4998", "line 4999"]
    assert len(read) < 200
    log.close()


def test_what_is_written_later_is_found_once(tmp_path: Path) -> None:
    path = tmp_path / "log_n.jsonl"
    log = part(path)
    assert messages(log) == []  # not there yet
    write(path, entry(1, "one"))
    assert messages(log) == ["one"]
    assert messages(log) == []
    write(path, entry(2, "two"))
    path.rename(tmp_path / "log_n.jsonl.1")
    write(path, entry(3, "three"))
    assert messages(log) == ["two", "three"]
    log.close()


@pytest.mark.parametrize("kept", [1, 2, 5])
def test_what_was_rotated_several_times_between_two_looks_is_found_as_far_as_it_is_kept(
    tmp_path: Path, kept: int
) -> None:
    path = tmp_path / "log_n.jsonl"
    size = len(entry(1, "m00")) + 1
    file, log = LogFile(path, max_size=size, rotated=kept), part(path)
    file.write([entry(1, "m00")])
    assert messages(log) == ["m00"]
    file.write([entry(1, f"m{number:02}") for number in range(1, 4)])
    newest = ["m01", "m02", "m03"][-(kept + 1) :]
    assert messages(log) == newest
    file.write([entry(1, "end")])
    assert messages(log) == ["end"]
    log.close()
    file.close()


def test_a_file_that_was_cut_off_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "log_n.jsonl"
    log = part(path)
    write(path, entry(1, "one"), entry(2, "two"))
    assert messages(log) == ["one", "two"]
    path.write_text("")
    write(path, entry(3, "three"))
    assert messages(log) == ["three"]
    log.close()


def test_half_a_line_waits_for_its_other_half(tmp_path: Path) -> None:
    path = tmp_path / "log_n.jsonl"
    line = entry(1, "whole")
    log = part(path)
    path.write_text(line[:20])
    assert messages(log) == []
    write(path, line[20:])
    assert messages(log) == ["whole"]
    log.close()


@given(sizes=st.lists(st.integers(0, 30), max_size=40), limit=st.integers(1, 500))
def test_pieces_are_bounded_and_lose_nothing(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], limit: int
) -> None:
    path = tmp_path_factory.mktemp("logs") / "log_n.jsonl"
    log = part(path)
    expected: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_files, "CHUNK_BYTES", limit)
        for size in sizes:
            texts = [f"{len(expected) + number}" for number in range(size)]
            write(path, *(entry(1, text) for text in texts))
            expected += texts
            assert messages(log) == texts
    log.close()


def test_lines_that_are_no_entries_never_pass() -> None:
    for line in ("", "x", "[]", "{}", "3", '{"ts": "x"}', "[" * 100_000):
        assert not matches(line, LogFilter())


def resumed(path: Path, log: PartLogReader) -> PartLogReader:
    """A new reader that continues behind what ``log`` has read."""
    log.close()
    return PartLogReader({path.stem: NodeLogReader(path)}, log.wanted, dict(log.positions))


def test_reading_continues_behind_a_position(tmp_path: Path) -> None:
    path = tmp_path / "log_n.jsonl"
    write(path, entry(1, "one"), entry(2, "two", "debug"))
    log = part(path, level="info")
    assert messages(log) == ["one"]
    log = resumed(path, log)
    assert messages(log) == []
    write(path, entry(3, "three"))
    log = resumed(path, log)
    assert messages(log) == ["three"]
    path.rename(tmp_path / "log_n.jsonl.1")
    write(path, entry(4, "four"))
    log = resumed(path, log)
    assert messages(log) == ["four"]
    (tmp_path / "log_n.jsonl.1").unlink()
    path.rename(tmp_path / "log_n.jsonl.1")
    write(path, entry(5, "five"))
    (tmp_path / "log_n.jsonl.1").unlink()
    log = resumed(path, log)
    assert messages(log) == ["five"]  # the file of the position no longer exists
    log.close()


def test_a_position_covers_the_lines_of_the_chunks_only(tmp_path: Path) -> None:
    a, b = tmp_path / "log_a.jsonl", tmp_path / "log_b.jsonl"
    write(a, entry(1, "a1"), entry(3, "a3"))
    write(b, entry(2, "b2"), entry(4, "b4"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_files, "CHUNK_BYTES", 1)
        log = part(a, b)
        assert len(log.next_chunk()) == 1
        assert set(log.positions) == {"log_a"}
        log.close()
    after = dict(log.positions)
    nodes = {path.stem: NodeLogReader(path) for path in (a, b)}
    log = PartLogReader(nodes, LogFilter(), after)
    assert messages(log) == ["b2", "a3", "b4"]
    log.close()


@given(steps=st.lists(st.sampled_from(["write", "read", "resume"]), max_size=60))
def test_resumed_readers_lose_and_repeat_nothing(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    path = tmp_path_factory.mktemp("logs") / "log_n.jsonl"
    size = 3 * (len(entry(1, "m000")) + 1)
    file, log = LogFile(path, max_size=size, rotated=30), part(path)
    file.create()
    count = 0
    found: list[str] = []
    for step in steps:
        if step == "write":
            # without the second, the first lines of two files could be the same
            file.write([entry(count % 60, f"m{count:03}")])
            count += 1
        else:
            if step == "resume":
                log = resumed(path, log)
            found += messages(log)
    assert found + messages(log) == [f"m{number:03}" for number in range(count)]
    log.close()
    file.close()
