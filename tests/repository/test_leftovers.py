"""The check for leftovers of tests."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from support.leftovers import LEFT_BY_A_TEST, TAG, Before, runtime_files
from support.waiting import StillWaiting, wait_until


@pytest.fixture
def before() -> Before:
    return Before.now(uuid.uuid4().hex)


def test_child_process(before: Before) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert before.processes() == [child.pid]
    child.communicate(b"\n")
    assert before.processes() == []


def test_detached_process_with_the_tag(before: Before, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    program = (
        "import os, sys, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    open(sys.argv[1], 'w').write(str(os.getpid()))\n"
        "    time.sleep(60)\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(pid_file)],
        env={**os.environ, TAG: before.tag},
        check=True,
    )
    pid = int(wait_until(lambda: pid_file.exists() and pid_file.read_text(), what="the pid"))
    assert before.processes() == [pid]
    os.kill(pid, 9)
    wait_until(lambda: before.processes() == [], what="the end of the detached process")


def test_open_pipe(before: Before) -> None:
    ends = os.pipe()
    assert len(before.new_descriptors()) == 2
    for end in ends:
        os.close(end)
    assert before.new_descriptors() == []


def test_shared_memory(before: Before) -> None:
    path = Path("/dev/shm") / f"{LEFT_BY_A_TEST}{before.tag}"
    path.touch()
    assert before.new_shared_memory() == [str(path)]
    path.unlink()


def test_runtime_directory(tmp_path: Path) -> None:
    (tmp_path / "state" / "dora" / "run" / "1").mkdir(parents=True)
    assert runtime_files(tmp_path) == ["state/dora/run/1"]


def test_failed_wait_names_its_condition() -> None:
    with pytest.raises(StillWaiting, match=r"waited 0\.01 s for the moon; the last look gave 0"):
        wait_until(lambda: 0, timeout=0.01, what="the moon")
