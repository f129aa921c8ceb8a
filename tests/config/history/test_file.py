"""History files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.runner.histories import failed, node_ended, restarting

from dora_config.history import file as file_module
from dora_config.history.file import HistoryFile, read_history

ENTRIES = [restarting(1.5, "a"), failed(2.25, "b"), node_ended(3.0, "c")]


def test_entries_are_appended_and_replaced(tmp_path: Path) -> None:
    file = HistoryFile(tmp_path / "out" / "uuid" / "history.jsonl")
    for entry in ENTRIES:
        assert file.append(entry) is None
    assert read_history(file.path) == ENTRIES
    assert file.lines == 3
    assert file.replace(ENTRIES[1:]) is None
    assert file.append(ENTRIES[0]) is None
    assert read_history(file.path) == [*ENTRIES[1:], ENTRIES[0]]


def test_a_torn_line_and_a_newer_event_are_skipped(tmp_path: Path) -> None:
    file = HistoryFile(tmp_path / "history.jsonl")
    file.append(ENTRIES[0])
    with file.path.open("a") as text:
        text.write('{"at":1.0,"event":{"kind":"of a newer version"}}\n{"at":2.0,"ev')
    file.append(ENTRIES[1])
    assert read_history(file.path) == ENTRIES[:2]


def test_of_a_long_file_the_newest_entries_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = HistoryFile(tmp_path / "history.jsonl")
    for entry in ENTRIES:
        file.append(entry)
    size = file.path.stat().st_size
    for limit, left in ((size, 3), (size - 1, 2), (10, 0)):
        monkeypatch.setattr(file_module, "MAX_FILE_BYTES", limit)
        assert read_history(file.path) == ENTRIES[3 - left :]


def test_an_error_is_returned_once(tmp_path: Path) -> None:
    file = HistoryFile(tmp_path / "missing" / "a" / "b" / "history.jsonl")
    problem = file.append(ENTRIES[0])
    assert problem == (
        f"cannot write {file.path}: No such file or directory; later entries are missing in it, "
        "the nodes run on"
    )
    assert file.append(ENTRIES[0]) is None
    (tmp_path / "missing" / "a").mkdir(parents=True)
    assert file.append(ENTRIES[1]) is None
    assert read_history(file.path) == [ENTRIES[1]]


def test_an_event_does_not_create_existing_folders_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = HistoryFile(tmp_path / "out" / "uuid" / "history.jsonl")
    assert file.append(ENTRIES[0]) is None
    made: list[Path] = []
    monkeypatch.setattr(Path, "mkdir", lambda path, **_: made.append(path))
    assert file.append(ENTRIES[1]) is None
    assert made == []


def test_later_events_are_kept_if_the_folder_is_deleted(tmp_path: Path) -> None:
    file = HistoryFile(tmp_path / "out" / "uuid" / "history.jsonl")
    file.append(ENTRIES[0])
    shutil.rmtree(tmp_path / "out")
    assert file.append(ENTRIES[1]) is None
    assert read_history(file.path) == ENTRIES[1:2]


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_history(tmp_path / "history.jsonl")
