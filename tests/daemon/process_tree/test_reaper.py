"""The reaper process and the order in which it removes files."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from support.waiting import wait_until

from dora_daemon.process_tree import reaper
from dora_daemon.process_tree.runtime_dir import RuntimeDir, sweep


def test_golden_lines_of_groups() -> None:
    assert reaper.group_line(42, 4711) == "42 4711\n"
    assert reaper.mark_line("dora-runner-1-2") == "mark dora-runner-1-2\n"


@pytest.mark.integration
@pytest.mark.parametrize("killed", [False, True], ids=["released", "killed"])
def test_a_directory_with_a_new_owner_is_left_alone(tmp_path: Path, killed: bool) -> None:
    """A directory's number may be reused before the reaper of the former owner runs."""
    first = RuntimeDir.create(tmp_path)
    argv = [sys.executable, "-I", "-S", reaper.__file__, str(first.path)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE)
    wait_until(lambda: _holds(process.pid, first.path / "lock"), what="the reaper to be ready")
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
    """If the owner is killed meanwhile, its reaper needs the lock."""
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
