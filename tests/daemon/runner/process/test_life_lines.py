"""Lines about the processes of nodes, and kills by the kernel for want of memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from dora_config.protocol.runner_events import (
    NodeConnected,
    NodeFailed,
    NodeRestarting,
    NodeResult,
    NodeSpawned,
)
from dora_daemon.runner.logs.life_lines import LifeLine, LifeLines
from dora_daemon.runner.machine.events import Exit
from dora_daemon.runner.machine.verdict import Ending, cause_of, judge
from dora_daemon.runner.process.memory_kills import RECENT, MemoryKills


def test_a_restart_its_delay_and_the_return_are_a_line_each() -> None:
    lines = LifeLines()
    restarting = NodeRestarting(node="a", reason="exited with code 1", delay=2.0, restarts=3)
    assert lines.line(restarting) == LifeLine("a", "warn", "exited with code 1; restart 3 in 2 s")
    assert lines.line(NodeSpawned(node="a", pid=7, incarnation=2, restarts=3)) is None
    connected = NodeConnected(node="a", pid=7, incarnation=2)
    again = LifeLine("a", "info", "runs again after restart 3 (process 7)")
    assert lines.line(connected) == again
    assert lines.line(connected) is None, "a start that is no restart"


def test_a_failure_is_a_line_unless_another_node_caused_it() -> None:
    lines = LifeLines()
    failed = NodeResult(node="a", outcome="failed", message="exited with code 1")
    assert lines.line(NodeFailed(result=failed)) == LifeLine(
        "a", "error", "failed: exited with code 1"
    )
    cascading = failed.model_copy(update={"outcome": "cascading"})
    assert lines.line(NodeFailed(result=cascading)) is None


@pytest.mark.parametrize(
    ("ending", "cause", "sentence"),
    [
        (Ending(Exit(code=3)), "exit code 3", "exited with code 3"),
        (Ending(Exit(signal="SIGSEGV")), "signal SIGSEGV", "because of signal SIGSEGV"),
        (Ending(Exit(signal="SIGKILL")), "SIGKILL, not sent by dora", "not sent by dora"),
        (
            Ending(Exit(signal="SIGKILL", out_of_memory=True)),
            "out of memory",
            "was killed by the kernel: out of memory",
        ),
        (
            Ending(Exit(code=137, out_of_memory=True)),
            "out of memory",
            "exited with code 137: the kernel killed a child of it: out of memory",
        ),
        (
            Ending(Exit(signal="SIGKILL"), kill_reason="nothing was heard from it for 5.0 s"),
            "killed: nothing was heard from it for 5.0 s",
            "was killed: nothing was heard from it for 5.0 s",
        ),
    ],
)
def test_the_cause_in_few_words_and_as_a_sentence(
    ending: Ending, cause: str, sentence: str
) -> None:
    assert cause_of(ending) == cause
    assert sentence in judge(ending).message


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
