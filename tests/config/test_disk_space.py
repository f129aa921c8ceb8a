"""Checks for free disk space."""

from __future__ import annotations

from pathlib import Path

import pytest

from dora_config import disk_space
from dora_config.disk_space import SPARE_BYTES, DiskFull, existing, require_room


def test_files_that_fit_are_accepted(tmp_path: Path) -> None:
    require_room([(tmp_path / "not" / "yet", 1000), (tmp_path, 0)])


def test_folders_on_one_disk_share_its_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_space, "free_space", lambda folder: SPARE_BYTES + 1000)
    require_room([(tmp_path / "a", 500), (tmp_path / "b", 500)])
    with pytest.raises(DiskFull) as problem:
        require_room([(tmp_path / "a", 500), (tmp_path / "b", 501)])
    assert str(problem.value) == (
        f"{tmp_path}/a: its disk has 16.0 MiB free, 1.0 KiB are needed (plus a reserve of "
        "16.0 MiB); make room there"
    )


def test_existing_returns_the_nearest_ancestor(tmp_path: Path) -> None:
    assert existing(tmp_path / "a" / "b") == tmp_path
