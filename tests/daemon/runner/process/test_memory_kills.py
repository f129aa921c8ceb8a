"""Kills by the kernel for lack of memory."""

from __future__ import annotations

from pathlib import Path

from dora_daemon.runner.machine.events import Exit
from dora_daemon.runner.process.memory_kills import RECENT_SECONDS, MemoryKills

SIGKILL = Exit(signal="SIGKILL")


def test_a_kill_is_claimed_once_and_soon(tmp_path: Path) -> None:
    proc, folder = tmp_path / "proc/self", tmp_path / "cgroup/system.slice/dora.service"
    proc.mkdir(parents=True)
    folder.mkdir(parents=True)
    (proc / "cgroup").write_text("4:memory:/a\n0::/system.slice/dora.service\n")

    def count(kills: int) -> None:
        text = f"low 0\noom 9\noom_kill {kills}\noom_group_kill 0\n"
        (folder / "memory.events").write_text(text)

    count(5)
    kills = MemoryKills(tmp_path / "proc", tmp_path / "cgroup")
    assert not kills.explain(SIGKILL, 1.0).out_of_memory, "what happened before"
    count(7)
    assert not kills.explain(Exit(code=1), 2.0).out_of_memory
    assert kills.explain(Exit(code=137), 2.0).out_of_memory
    assert kills.explain(SIGKILL, 2.0).out_of_memory
    assert not kills.explain(SIGKILL, 2.0).out_of_memory
    count(8)
    kills.explain(Exit(code=0), 10.0)
    assert not kills.explain(SIGKILL, 10.0 + RECENT_SECONDS + 1).out_of_memory, "another was killed"


def test_without_a_cgroup_nothing_is_claimed(tmp_path: Path) -> None:
    kills = MemoryKills(tmp_path / "proc", tmp_path / "cgroup")
    assert not kills.explain(SIGKILL, 1.0).out_of_memory
