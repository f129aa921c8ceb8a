"""Room on disks."""

from __future__ import annotations

from pathlib import Path

import pytest

from dora_config import disk_space
from dora_config.disk_space import SPARE, DiskFull, existing, require_room, show_size


def test_what_fits_is_not_an_error(tmp_path: Path) -> None:
    require_room([(tmp_path / "not" / "yet", 1000), (tmp_path, 0)])


def test_folders_on_one_disk_share_its_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_space, "free_space", lambda folder: SPARE + 1000)
    require_room([(tmp_path / "a", 500), (tmp_path / "b", 500)])
    with pytest.raises(DiskFull) as problem:
        require_room([(tmp_path / "a", 500), (tmp_path / "b", 501)])
    assert str(problem.value) == (
        f"{tmp_path}/a: its disk has 16.0 MiB free, 1.0 KiB are needed (and 16.0 MiB stay free); "
        "make room there"
    )


def test_the_nearest_folder_that_exists_is_asked(tmp_path: Path) -> None:
    assert existing(tmp_path / "a" / "b") == tmp_path


@pytest.mark.parametrize(
    ("size", "shown"), [(512, "0.5 KiB"), (3 << 20, "3.0 MiB"), (5 << 29, "2.5 GiB")]
)
def test_sizes_for_people(size: int, shown: str) -> None:
    assert show_size(size) == shown
