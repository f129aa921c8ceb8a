"""The lines of history files."""

from __future__ import annotations

from pathlib import Path

from support.golden import check_golden
from support.message_examples import examples

from dora_config.history.entries import (
    STDERR_CHARACTERS,
    EntriesDropped,
    HistoryEntry,
    PartRecovering,
    RunnerWarned,
    decode_entry,
    encode_entry,
    kept_stderr,
)


def test_golden_bytes() -> None:
    entries = examples(HistoryEntry, {})
    lines = [encode_entry(entry).encode() for entry in entries]
    check_golden(Path(__file__).parent / "golden" / "history-1.0.jsonl", lines)
    assert [decode_entry(line) for line in lines] == entries
    dropped = EntriesDropped(dropped=7, dataflow="text")
    assert encode_entry(dropped) == '{"dropped":7,"dataflow":"text"}'
    assert decode_entry(encode_entry(dropped)) == dropped


def test_a_recovery_that_waits_for_its_machine_is_read_as_one() -> None:
    waiting = PartRecovering(machine="robot", nodes=("camera",), reason="lost", delay=None)
    entry = HistoryEntry(at=1.0, event=waiting)
    assert decode_entry(encode_entry(entry)) == entry


def test_a_path_that_is_not_utf8() -> None:
    entry = HistoryEntry(at=1.0, event=RunnerWarned(level="warn", text="cannot write /b\udcffd"))
    kept = RunnerWarned(level="warn", text="cannot write /b?d")
    assert decode_entry(encode_entry(entry)) == HistoryEntry(at=1.0, event=kept)


def test_only_the_last_lines_of_stderr_are_kept() -> None:
    lines = tuple(f"{number}" + "x" * 500 for number in range(100))
    kept = kept_stderr(lines)
    assert [line[:2] for line in kept] == [str(number) for number in range(80, 100)]
    assert {len(line) for line in kept} == {STDERR_CHARACTERS}
