"""The lines of history files."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, strategies as st
from support.golden import check_golden
from support.message_examples import examples
from support.runner.histories import node_ended

from dora_config.history.entries import (
    STDERR_CHARACTERS,
    EntriesDropped,
    HistoryEntry,
    KeptEvents,
    PartRecovering,
    RunnerWarned,
    decode_entry,
    encode_entry,
    kept_stderr,
    split_dropped,
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


@given(st.integers(0, 40), st.integers(0, 8), st.integers(1, 8))
def test_the_first_and_the_last_events_are_kept(count: int, first: int, last: int) -> None:
    entries = [node_ended(float(number), "a") for number in range(count)]
    kept = KeptEvents(entries, first=first, last=last)
    expected = entries if count <= first + last else [*entries[:first], *entries[-last:]]
    assert list(kept.entries()) == expected
    assert kept.dropped == count - len(expected)


@given(st.integers(0, 40), st.integers(0, 8), st.integers(1, 8))
def test_the_number_of_dropped_events_is_saved(count: int, first: int, last: int) -> None:
    entries = [node_ended(float(number), "a") for number in range(count)]
    kept = KeptEvents(entries, first=first, last=last)
    lines = [encode_entry(entry) for entry in kept.saved()]
    saved = [entry for line in lines if (entry := decode_entry(line)) is not None]
    again = KeptEvents(saved, first=first, last=last)
    assert (again.entries(), again.dropped) == (kept.entries(), kept.dropped)
    assert split_dropped(saved) == (kept.entries(), kept.dropped)
