"""Kills by the kernel for lack of memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from dora_daemon.runner.process.memory_kills import RECENT, MemoryKills


def machine(folder: Path, cgroup: str) -> tuple[Path, Path]:
    """Folders in place of /proc and /sys/fs/cgroup, for a process in a cgroup."""
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/cgroup").write_text(cgroup)
    return folder / "proc", folder / "cgroup"


def counter(path: Path, kills: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"low 0\nhigh 4\noom 9\noom_kill {kills}\noom_group_kill 0\n")
    return path


@pytest.mark.parametrize(
    ("cgroup", "file"),
    [
        ("0::/system.slice/dora.service\n", "cgroup/system.slice/dora.service/memory.events"),
        ("4:memory:/a/b\n0::/\n", "cgroup/memory/a/b/memory.oom_control"),
        ("4:cpu,memory:/docker/x\n", "cgroup/memory/memory.oom_control"),
        ("", "proc/vmstat"),
    ],
)
def test_a_kill_is_claimed_once_and_soon(tmp_path: Path, cgroup: str, file: str) -> None:
    proc, cgroups = machine(tmp_path, cgroup)
    path = counter(tmp_path / file, 5)
    kills = MemoryKills(proc, cgroups)
    assert not kills.claim(1.0), "what happened before"
    counter(path, 6)
    assert kills.claim(2.0)
    assert not kills.claim(2.0)
    counter(path, 7)
    kills.look(10.0)
    assert not kills.claim(10.0 + RECENT + 1), "that one killed something else"


def test_without_any_counter_nothing_is_claimed(tmp_path: Path) -> None:
    kills = MemoryKills(tmp_path / "proc", tmp_path / "cgroup")
    assert not kills.claim(1.0)
