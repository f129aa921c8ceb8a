"""Files that are replaced as a whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from dora_config.atomic_write import write_file


def test_file_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_text("old")
    before = target.stat().st_ino
    write_file(target, "new", mode=0o600)
    assert target.read_text() == "new"
    assert target.stat().st_ino != before
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [target]


def test_pipe_is_written_and_stays(tmp_path: Path) -> None:
    target = tmp_path / "pipe"
    os.mkfifo(target)
    reader = os.open(target, os.O_RDONLY | os.O_NONBLOCK)
    write_file(target, b"content")
    assert os.read(reader, 100) == b"content"
    os.close(reader)
    assert stat.S_ISFIFO(target.stat().st_mode)


def test_error_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as problem:
        write_file(tmp_path / "absent" / "a", "x")
    assert problem.value.filename == str(tmp_path / "absent" / "a")
