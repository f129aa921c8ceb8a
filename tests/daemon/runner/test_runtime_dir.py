"""Runtime directories: numbered, locked, swept, and found by others."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from support.waiting import wait_until

from dora_daemon.runner import runtime_dir
from dora_daemon.runner.errors import RunnerError
from dora_daemon.runner.process import reaper as guardian
from dora_daemon.runner.runtime_dir import (
    IndexEntry,
    RuntimeDir,
    acknowledge,
    list_runners,
    own_identity,
    read_entry,
    runtime_root,
    sweep,
)
from dora_node_api.backends import dynamic


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
    """As if the owner had been killed."""
    os.close(directory.lock_descriptor)
    return directory.path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_where_they_lie() -> None:
    assert runtime_root({"RUNTIME_DIRECTORY": "/run/dora:/run/other"}) == Path("/run/dora")
    assert runtime_root({"XDG_STATE_HOME": "/s"}) == Path("/s/dora/run")
    assert runtime_root({"XDG_STATE_HOME": "relative"}) == Path.home() / ".local/state/dora/run"
    assert runtime_root({}) == Path.home() / ".local/state/dora/run"
    assert runtime_root({"RUNTIME_DIRECTORY": "here"}) == Path.cwd() / "here"


def test_the_root_of_a_relative_home_is_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "home")
    assert runtime_root({}) == Path.cwd() / "home/.local/state/dora/run"


def test_nodes_look_where_runners_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for state in ("", "relative", str(tmp_path)):
        monkeypatch.setenv("XDG_STATE_HOME", state)
        assert dynamic.runtime_roots()[0] == runtime_root()


def test_numbers_modes_and_removal(tmp_path: Path) -> None:
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


def test_the_index_round_trip_and_what_a_newer_version_adds(tmp_path: Path) -> None:
    directory = RuntimeDir.create(tmp_path)
    directory.write_index(entry())
    assert read_entry(directory.path) == entry()
    values = json.loads((directory.path / "index.json").read_text())
    (directory.path / "index.json").write_text(json.dumps({**values, "new": 1}))
    assert read_entry(directory.path) == entry()
    for text in ("", "[]", "{}", "nonsense"):
        (directory.path / "index.json").write_text(text)
        assert read_entry(directory.path) is None
    directory.release()


def test_the_living_are_told_from_the_dead(tmp_path: Path) -> None:
    directory = RuntimeDir.create(tmp_path)
    _, started, boot = own_identity()
    for fields, alive in (
        ({}, True),
        ({"start_time": started + 1}, False),
        ({"boot_id": f"not {boot}"}, False),
        ({"pid": 2**22 + 1}, False),
    ):
        directory.write_index(entry(**fields))
        assert [found.alive for found in list_runners(tmp_path)] == [alive]
    directory.release()
    assert list_runners(tmp_path) == []
    assert list_runners(tmp_path / "absent") == []


def test_a_sweep_takes_what_nobody_owns(tmp_path: Path) -> None:
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


def test_a_result_outlives_a_sweep_until_it_is_acknowledged_or_old(tmp_path: Path) -> None:
    directory = RuntimeDir.create(tmp_path)
    directory.write_index(entry(foreground=False))
    directory.write("result.json", "{}")
    (directory.path / "n").touch()
    path = abandon(directory)
    assert sweep(tmp_path) == []
    assert sorted(p.name for p in path.iterdir()) == ["index.json", "lock", "result.json"]
    assert [found.has_result for found in list_runners(tmp_path)] == [True]
    acknowledge(path)
    assert not path.exists()
    old = RuntimeDir.create(tmp_path)
    old.write("result.json", "{}")
    month = time.time() - runtime_dir.KEEP_RESULT - 1
    os.utime(old.path / "result.json", (month, month))
    path = abandon(old)
    assert sweep(tmp_path) == [path]


def test_an_acknowledgement_does_not_touch_the_living(tmp_path: Path) -> None:
    directory = RuntimeDir.create(tmp_path)
    with pytest.raises(RunnerError, match="still runs"):
        acknowledge(directory.path)
    with pytest.raises(RunnerError, match="belongs to a runner that lives"):
        RuntimeDir.take_over(directory.path)
    directory.release()


def test_a_root_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunnerError) as caught:
        RuntimeDir.create(tmp_path / "file" / "run")
    assert str(tmp_path / "file" / "run") in str(caught.value)
    assert "XDG_STATE_HOME" in str(caught.value)


def test_a_root_of_somebody_else_is_named_with_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *, wait: bool = False) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(runtime_dir, "lock", refuse)
    with pytest.raises(RunnerError, match="Permission denied; set XDG_STATE_HOME"):
        RuntimeDir.create(tmp_path)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(RunnerError) as caught:
        RuntimeDir.create(tmp_path)
    assert f"; it belongs to {tmp_path.owner()}, as after" in str(caught.value)
    assert f"`sudo chown -R $USER {tmp_path}`" in str(caught.value)


@pytest.mark.integration
@pytest.mark.parametrize("killed", [False, True], ids=["released", "killed"])
def test_a_guardian_leaves_a_directory_alone_that_was_made_again(
    tmp_path: Path, killed: bool
) -> None:
    """Numbers are used again, perhaps before the guardian of the one before has looked."""
    first = RuntimeDir.create(tmp_path)
    words = [sys.executable, "-I", "-S", guardian.__file__, str(first.path)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE)
    wait_until(lambda: _holds(process.pid, first.path / "lock"), what="the guardian to be ready")
    if killed:
        os.close(first.lock_descriptor)
        sweep(tmp_path)
    else:
        first.release()
    second = RuntimeDir.create(tmp_path)
    assert second.path == first.path
    node = subprocess.Popen(["sleep", "60"], start_new_session=True)
    second.record_process(node.pid)
    process.communicate(timeout=60)
    assert second.path.is_dir()
    assert node.poll() is None
    node.kill()
    node.wait()
    second.release()


def _holds(pid: int, path: Path) -> bool:
    links = Path(f"/proc/{pid}/fd").iterdir()
    with suppress(OSError):
        return any(link.resolve() == path for link in links)
    return False


def test_the_lock_of_a_directory_is_removed_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runner that is killed while it removes its directory leaves the rest to its guardian."""
    directory = RuntimeDir.create(tmp_path)
    for name in ("a", "groups", "z"):
        (directory.path / name).touch()
    removed: list[str] = []
    unlink = os.unlink

    def noted(path: str) -> None:
        removed.append(Path(path).name)
        unlink(path)

    monkeypatch.setattr(os, "unlink", noted)
    directory.release()
    assert {"a", "groups", "lock", "z"} <= set(removed)
    assert removed[-1] == "lock"
