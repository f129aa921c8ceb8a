"""Unpacking an archive."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from support.waiting import PATIENCE, wait_until

from dora_cluster.remote_call import command_words, program_input
from dora_cluster.remote_program import versions


def packed(folder: Path) -> tuple[Path, str]:
    """An archive of empty folders, with its SHA-256."""
    path = folder / "a.part"
    with tarfile.open(path, "w:gz") as archive:
        for name in ("bin", "lib"):
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(member)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def test_full_disk_leaves_no_part_of_a_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, sha256 = packed(tmp_path)

    def fill(_packed: tarfile.TarFile, target: Path, **_options: object) -> None:
        (target / "begun").write_text("")
        raise OSError(errno.ENOSPC, "No space left on device", str(target / "begun"))

    monkeypatch.setattr(tarfile.TarFile, "extractall", fill)
    with pytest.raises(OSError, match="No space left"):
        versions.unpack(str(path), sha256, str(tmp_path / "prefix"), "2")
    assert list((tmp_path / "prefix").iterdir()) == []
    assert path.exists(), "it can be unpacked again without a transfer"


def test_unpacking_ends_with_its_connection(tmp_path: Path) -> None:
    path, prefix = tmp_path / "a.part", tmp_path / "prefix"
    with tarfile.open(path, "w:gz", compresslevel=1) as packed:
        large = tarfile.TarInfo("large")
        large.size = 400 << 20
        with open("/dev/zero", "rb") as zeros:
            packed.addfile(large, zeros)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    arguments = {"path": str(path), "sha256": sha256, "prefix": str(prefix), "name": "2"}
    process = subprocess.Popen(
        command_words("versions.unpack"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(program_input("versions.unpack", arguments))
    process.stdin.close()
    wait_until(lambda: list(prefix.glob(".new-*/large")), what="the beginning")
    process.stdout.close()
    assert process.wait(PATIENCE) == 1
    assert list(prefix.iterdir()) == []


def test_what_a_killed_command_left_makes_room(tmp_path: Path) -> None:
    """It is removed at once, but not what another command unpacks at the moment."""
    (tmp_path / ".new-left").mkdir()
    unpacked = tmp_path / ".new-unpacked"
    unpacked.mkdir()
    with versions.in_work(unpacked):
        assert versions.make_room(str(tmp_path))["free"] > 0
        assert list(tmp_path.iterdir()) == [unpacked]
    versions.make_room(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("with_ctypes", [True, False])
def test_version_is_on_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_ctypes: bool
) -> None:
    path, sha256 = packed(tmp_path)
    prefix = tmp_path / "prefix"
    synced: list[list[Path]] = []

    class Libc:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def syncfs(self, handle: int) -> int:
            assert Path(f"/proc/self/fd/{handle}").readlink().parent == prefix
            synced.append(list(prefix.iterdir()))
            return 0

    if with_ctypes:
        monkeypatch.setattr(ctypes, "CDLL", Libc)
    else:
        monkeypatch.setitem(sys.modules, "ctypes", None)
        monkeypatch.setattr(os, "sync", lambda: synced.append(list(prefix.iterdir())))
    tree = versions.unpack(str(path), sha256, str(prefix), "2")["tree"]
    (before,) = synced
    assert [one.name.startswith(".new-") for one in before] == [True]
    assert list(prefix.iterdir()) == [Path(tree)]


def test_version_that_the_disk_does_not_take_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, sha256 = packed(tmp_path)

    def fail(folder: Path) -> None:
        raise OSError(errno.EIO, "Input/output error", str(folder.parent))

    monkeypatch.setattr(versions, "_sync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        versions.unpack(str(path), sha256, str(tmp_path / "prefix"), "2")
    assert list((tmp_path / "prefix").iterdir()) == []


def test_error_of_the_file_system_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", lambda *_: -1)  # not a descriptor
    monkeypatch.setattr(os, "close", lambda _: None)
    with pytest.raises(OSError, match="Bad file descriptor"):
        versions._sync(Path("/prefix/.new-1"))
