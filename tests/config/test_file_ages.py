"""Ages of files with times of a wrong clock."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.fleets import stored_files

from dora_config.file_ages import EARLIEST, last_change
from dora_config.file_store import FileStore

NOW = EARLIEST + 1000 * 86400.0


@pytest.mark.parametrize("age", [0.0, 60.0, 900 * 86400.0, -3600.0])
def test_plausible_time_is_kept(tmp_path: Path, age: float) -> None:
    path = tmp_path / "file"
    path.touch()
    os.utime(path, (NOW - age, NOW - age))
    assert last_change(path, NOW) == NOW - age
    assert path.stat().st_mtime == NOW - age


@pytest.mark.parametrize("stamp", [5.0, EARLIEST - 1, NOW + 3 * 86400.0])
def test_implausible_time_is_replaced(tmp_path: Path, stamp: float) -> None:
    path = tmp_path / "file"
    path.touch()
    os.utime(path, (stamp, stamp))
    assert last_change(path, NOW) == NOW
    assert path.stat().st_mtime == NOW


def test_file_of_1970_is_kept_when_the_clock_is_corrected(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "code")
    digest = stored_files.add(store, b"x")
    os.utime(store.path(digest), (100.0, 100.0))
    assert store.collect(max_age=60 * 86400.0, max_bytes=1 << 30) == 0
    assert store.path(digest).exists()
