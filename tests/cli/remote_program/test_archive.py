"""Unpacking an archive."""

from __future__ import annotations

import errno
import hashlib
import tarfile
from pathlib import Path

import pytest

from dora_cli.remote_program import archive


def test_full_disk_leaves_no_part_of_a_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.part"
    with tarfile.open(path, "w:gz"):
        pass
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()

    def fill(_packed: tarfile.TarFile, target: Path, **_options: object) -> None:
        (target / "begun").write_text("")
        raise OSError(errno.ENOSPC, "No space left on device", str(target / "begun"))

    monkeypatch.setattr(tarfile.TarFile, "extractall", fill)
    with pytest.raises(OSError, match="No space left"):
        archive.unpack(str(path), sha256, str(tmp_path / "prefix"), "2")
    assert list((tmp_path / "prefix").iterdir()) == []
    assert path.exists(), "it can be unpacked again without a transfer"
