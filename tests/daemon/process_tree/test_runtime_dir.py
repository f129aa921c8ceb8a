"""Runtime directories: numbers, locks, sweeps and discovery."""

from __future__ import annotations

import errno
import os
import stat
import time
from pathlib import Path

import pytest

from dora_daemon.process_tree import runtime_dir
from dora_daemon.process_tree.runtime_dir import (
    RuntimeDir,
    RuntimeDirError,
    own_identity,
    runtime_root,
    sweep,
)
from dora_node_api.backends import dynamic
from dora_node_api.protocol.runner_index import IndexEntry, read_entry


def entry(**fields: object) -> IndexEntry:
    pid, started, boot = own_identity()
    values = {
        "dataflow_id": "id",
        "name": "demo",
        "nodes": ("a", "d"),
        "dynamic_nodes": ("d",),
        "pid": pid,
        "start_time": started,
        "boot_id": boot,
        "foreground": True,
        **fields,
    }
    return IndexEntry(**values)  # type: ignore[arg-type]


def abandon(directory: RuntimeDir) -> Path:
    """Unlock the directory as the kernel does for an owner that was killed."""
    os.close(directory.lock_descriptor)
    return directory.path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_location_of_the_root() -> None:
    assert runtime_root({"RUNTIME_DIRECTORY": "/run/dora:/run/other"}) == Path("/run/dora")
    assert runtime_root({"XDG_STATE_HOME": "/s"}) == Path("/s/dora/run")
    assert runtime_root({"XDG_STATE_HOME": "relative"}) == Path.home() / ".local/state/dora/run"
    assert runtime_root({}) == Path.home() / ".local/state/dora/run"
    assert runtime_root({"RUNTIME_DIRECTORY": "here"}) == Path.cwd() / "here"


def test_the_root_of_a_relative_home_is_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "home")
    assert runtime_root({}) == Path.cwd() / "home/.local/state/dora/run"


def test_nodes_search_the_root_of_runners(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for state in ("", "relative", str(tmp_path)):
        monkeypatch.setenv("XDG_STATE_HOME", state)
        assert dynamic.runtime_roots()[0] == runtime_root()


def test_directories_are_numbered_private_and_removed(tmp_path: Path) -> None:
    root = tmp_path / "run"
    first, second = RuntimeDir.create(root), RuntimeDir.create(root)
    assert [first.path.name, second.path.name] == ["0", "1"]
    first.write_index(entry())
    first.write("plan.json", "{}")
    assert mode(root) == mode(first.path) == 0o700
    assert all(mode(p) == 0o600 for p in first.path.iterdir())
    first.release()
    third = RuntimeDir.create(root)
    assert third.path.name == "0"
    third.release()
    second.release()
    assert [p.name for p in root.iterdir()] == [".lock"]


def test_an_index_that_cannot_be_read_counts_as_missing(tmp_path: Path) -> None:
    directory = RuntimeDir.create(tmp_path)
    directory.write_index(entry())
    assert read_entry(directory.path) == entry()
    for text in ("", "[]", "{}", "nonsense"):
        (directory.path / "index.json").write_text(text)
        assert read_entry(directory.path) is None
    directory.release()


def test_a_sweep_removes_directories_without_an_owner(tmp_path: Path) -> None:
    owned = RuntimeDir.create(tmp_path)
    lost = RuntimeDir.create(tmp_path)
    lost.write_index(entry())
    (lost.path / "packages").mkdir()
    (lost.path / "packages" / "dora").symlink_to(owned.path)
    path = abandon(lost)
    assert sweep(tmp_path) == [path]
    assert owned.path.is_dir()
    assert sweep(tmp_path) == []
    owned.release()
    assert sweep(tmp_path / "absent") == []


def test_a_result_survives_sweeps_until_removed_or_old(tmp_path: Path) -> None:
    directory = RuntimeDir.create(tmp_path)
    directory.write_index(entry(foreground=False))
    directory.write("result.json", "{}")
    (directory.path / "n").touch()
    path = abandon(directory)
    assert sweep(tmp_path) == []
    assert sorted(p.name for p in path.iterdir()) == ["index.json", "lock", "result.json"]
    (path / "result.json").unlink()
    assert sweep(tmp_path) == [path]
    old = RuntimeDir.create(tmp_path)
    old.write("result.json", "{}")
    month = time.time() - runtime_dir.KEEP_RESULT - 1
    os.utime(old.path / "result.json", (month, month))
    path = abandon(old)
    assert sweep(tmp_path) == [path]


def test_the_directory_of_a_living_runner_is_not_removed(tmp_path: Path) -> None:
    directory = RuntimeDir.create(tmp_path)
    assert sweep(tmp_path) == []
    with pytest.raises(RuntimeDirError, match="is in use by a running process"):
        RuntimeDir.take_over(directory.path)
    directory.release()


def test_a_root_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RuntimeDirError) as caught:
        RuntimeDir.create(tmp_path / "file" / "run")
    assert str(tmp_path / "file" / "run") in str(caught.value)
    assert "XDG_STATE_HOME" in str(caught.value)


def test_a_root_of_another_user_is_named_with_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *, wait: bool = False) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(runtime_dir, "lock", refuse)
    with pytest.raises(RuntimeDirError, match="Permission denied; set XDG_STATE_HOME"):
        RuntimeDir.create(tmp_path)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(RuntimeDirError) as caught:
        RuntimeDir.create(tmp_path)
    assert f"; it belongs to {tmp_path.owner()}, as after" in str(caught.value)
    assert f"`sudo chown -R $USER {tmp_path}`" in str(caught.value)
