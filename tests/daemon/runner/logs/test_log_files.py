"""Log files: appended, rotated, with one report of each error."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from shutil import rmtree

import pytest

from dora_daemon.runner.logs.log_files import LogFile


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_is_made_with_its_folders_and_appended(tmp_path: Path) -> None:
    path = tmp_path / "out" / "id" / "log_a.jsonl"
    log = LogFile(path)
    assert log.create() is None
    assert path.read_text() == ""
    log.write(["1"])
    log.close()
    log.write(["2"])
    log.close()
    again = LogFile(path)
    again.write(["3"])
    again.close()
    assert path.read_text() == "1\n2\n3\n"


def test_other_accounts_cannot_read_it(tmp_path: Path) -> None:
    path = tmp_path / "out" / "id" / "log_a.jsonl"
    umask = os.umask(0)
    try:
        log = LogFile(path, max_size=1)
        log.write(["1", "2"])
        log.close()
    finally:
        os.umask(umask)
    found = {one.name: one.stat().st_mode & 0o777 for one in (tmp_path / "out").rglob("*")}
    assert found == {"id": 0o700, "log_a.jsonl": 0o600, "log_a.jsonl.1": 0o600}
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700


def test_rotation_keeps_so_many_and_drops_the_oldest(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log", max_size=10, rotated=2)
    for number in range(10):
        log.write([f"{number} 23456"])
    log.close()
    assert names(tmp_path) == ["log", "log.1", "log.2"]
    assert (tmp_path / "log").read_text() == "9 23456\n"
    assert (tmp_path / "log.1").read_text() == "8 23456\n"
    assert (tmp_path / "log.2").read_text() == "7 23456\n"


@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_no_part_exceeds_the_limit_however_many_lines_come_at_once(
    tmp_path: Path, at_once: int
) -> None:
    log = LogFile(tmp_path / "log", max_size=2000, rotated=1000)
    lines = [f"line {number} " + "x" * (number % 97) for number in range(1000)]
    for first in range(0, len(lines), at_once):
        assert log.write(lines[first : first + at_once]) is None
    log.close()
    parts = sorted(
        tmp_path.iterdir(), key=lambda path: -int(path.suffix[1:] or 0) if path.suffix else 0
    )
    assert all(path.stat().st_size <= 2000 for path in parts)
    assert all(path.stat().st_size > 1800 for path in parts[:-1])
    assert "".join(path.read_text() for path in parts).splitlines() == lines


def test_a_longer_line_has_a_part_of_its_own(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log", max_size=10)
    log.write(["short", "x" * 50, "end"])
    log.close()
    assert (tmp_path / "log").read_text() == "end\n"
    assert (tmp_path / "log.1").read_text() == "x" * 50 + "\n"
    assert (tmp_path / "log.2").read_text() == "short\n"


def test_a_file_that_is_too_large_already_is_rotated_first(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("0123456789\n")
    log = LogFile(tmp_path / "log", max_size=5)
    log.write(["1"])
    log.close()
    assert (tmp_path / "log").read_text() == "1\n"
    assert (tmp_path / "log.1").read_text() == "0123456789\n"


def test_a_moved_or_removed_file_is_created_again(tmp_path: Path) -> None:
    """As logrotate does."""
    path = tmp_path / "out" / "id" / "log"
    log = LogFile(path)
    log.write(["1"])
    path.rename(path.with_name("log.1"))
    log.write(["2"])
    assert path.read_text() == "2\n"
    assert path.with_name("log.1").read_text() == "1\n"
    rmtree(tmp_path / "out")
    assert log.write(["3"]) is None
    assert path.read_text() == "3\n"
    log.close()


def test_a_file_that_was_cut_off_is_written_from_its_beginning(tmp_path: Path) -> None:
    """As logrotate does with `copytruncate`."""
    log = LogFile(tmp_path / "log", max_size=6)
    log.write(["12345"])
    os.truncate(tmp_path / "log", 0)
    log.write(["6"])
    log.close()
    assert names(tmp_path) == ["log"]
    assert (tmp_path / "log").read_text() == "6\n"


def test_the_removed_folder_of_a_dataflow_is_not_created_again(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "project" / "out" / "id" / "log")
    log.write(["1"])
    rmtree(tmp_path / "project")
    problem = log.write(["2"])
    assert problem is not None
    assert "No such file or directory" in problem
    assert log.write(["3"]) is None
    assert names(tmp_path) == []


def test_error_is_reported_once_and_writing_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LogFile(tmp_path / "log")
    assert log.write(["before"]) is None
    real = os.write
    room = [3]

    def full(descriptor: int, data: bytes) -> int:
        if room[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = real(descriptor, bytes(data)[: room[0]])
        room[0] = 0
        return taken

    monkeypatch.setattr(os, "write", full)
    problem = log.write(["lost entry"])
    assert problem is not None
    assert "No space left on device" in problem
    assert str(tmp_path / "log") in problem
    assert log.write(["lost too"]) is None
    monkeypatch.setattr(os, "write", real)
    assert log.write(["after"]) is None
    log.close()
    # What was cut off does not spoil the entry after it.
    assert (tmp_path / "log").read_text() == "before\nlos\nafter\n"


def test_a_folder_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    log = LogFile(tmp_path / "out" / "log")
    problem = log.write(["x"])
    assert problem is not None
    assert "cannot write the log file" in problem
    assert log.write(["y"]) is None
