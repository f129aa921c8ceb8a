"""Reports of recorders on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from dora_config.protocol.recorders import RecorderEnd
from dora_recordings.status_file import (
    ALLOCATED_BYTES,
    StatusFile,
    identified,
    is_recording,
    read_status,
)


def test_the_last_report_is_read_also_if_it_is_shorter(tmp_path: Path) -> None:
    path = tmp_path / "0.status"
    file = StatusFile(path)
    first = read_status(path)
    assert first is not None
    assert is_recording(first)
    file.write(identified(recorded={"node/output": 12}, problem="x" * 1000))
    file.write(identified(end=RecorderEnd.STOPPED))
    file.close()
    last = read_status(path)
    assert last is not None
    assert last == identified(end=RecorderEnd.STOPPED)
    assert not is_recording(last)


def test_space_for_reports_is_allocated_before_the_disk_is_full(tmp_path: Path) -> None:
    StatusFile(tmp_path / "0.status").close()
    assert (tmp_path / "0.status").stat().st_blocks * 512 >= ALLOCATED_BYTES


def test_a_process_that_has_ended_does_not_record(tmp_path: Path) -> None:
    assert not is_recording(identified(start_time=1))
    assert not is_recording(identified(boot_id="another"))


def test_files_without_a_report(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "torn").write_bytes(b'00000000 20 {"pid":')
    for name in ("empty", "torn", "absent"):
        assert read_status(tmp_path / name) is None


def test_a_missing_file_is_not_read_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reads: list[Path] = []

    def read(path: Path) -> bytes:
        reads.append(path)
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    assert read_status(tmp_path / "absent") is None
    assert len(reads) == 1
