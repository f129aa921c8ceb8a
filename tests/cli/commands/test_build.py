"""`dora build`: progress, failures, lock file, interruption."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.command_line import Dora
from support.dora import RunningDora, running_dora
from support.waiting import wait_until

import dora_cli.build.progress


def _write(folder: Path, *nodes: str) -> None:
    (folder / "flow.yml").write_text("nodes:\n" + "\n".join(nodes))


NODE = "  - {{id: {0}, path: {0}.py, build: '{1}'}}"


@pytest.fixture(autouse=True)
def no_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dora_cli.build.progress, "show_duration", lambda seconds: "0 ms")


def test_progress_of_every_node(dora: Dora, tmp_path: Path) -> None:
    _write(tmp_path, NODE.format("a", "echo hello"), NODE.format("b", "echo one"))
    shown = dora("build", "flow.yml")
    assert (shown.code, shown.err) == (0, "")
    *lines, last = shown.out.splitlines()
    assert lines == [
        "a: echo hello",
        "a:   hello",
        "a: ready after 0 ms",
        "b: echo one",
        "b:   one",
        "b: ready after 0 ms",
    ]
    assert last.startswith("build finished successfully: ")
    assert last.split()[-1] in (tmp_path / "out" / "flow.dora-session.yaml").read_text()


def test_nothing_to_build(dora: Dora, hello: Path) -> None:
    assert dora("build", hello.name).out == "nothing to build: no node has `build` or `git`\n"


def test_a_failure_is_reported_and_other_nodes_are_built(dora: Dora, tmp_path: Path) -> None:
    _write(
        tmp_path,
        NODE.format("a", 'sh -c "echo boom; exit 3"'),
        NODE.format("b", "touch made"),
    )
    shown = dora("build", "flow.yml", "--parallel")
    assert shown.code == 1
    assert shown.err == (
        f'[ERROR]\nnode "a": build line \'sh -c "echo boom; exit 3"\' in {tmp_path}: exit code 3\n'
    )
    assert shown.out.count("boom") == 2  # the line and its output
    assert "a: failed\n" in shown.out
    assert (tmp_path / "made").exists()


def test_contradicting_options(dora: Dora, hello: Path) -> None:
    shown = dora("build", hello.name, "--locked", "--write-lockfile")
    assert shown.code == 2
    assert "--locked and --write-lockfile cannot be used together" in shown.err


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "remote" / "nodes"
    folder.mkdir(parents=True)
    _git(folder, "init", "--quiet", "--initial-branch", "main")
    _commit(folder, "one")
    return folder


def _commit(folder: Path, text: str) -> str:
    (folder / "node.py").write_text(text)
    _git(folder, "add", ".")
    _git(folder, "commit", "--quiet", "-m", text)
    return _git(folder, "rev-parse", "HEAD")


def test_the_lock_file_pins_a_branch_to_its_commit(
    dora: Dora, tmp_path: Path, repository: Path
) -> None:
    first = _git(repository, "rev-parse", "HEAD")
    _write(tmp_path, f"  - {{id: n, path: node.py, git: 'file://{repository}', branch: main}}")
    shown = dora("build", "flow.yml", "--write-lockfile")
    assert shown.code == 0
    assert shown.err == "wrote flow.dora-lock.yaml (1 git source)\n"
    assert f"n: git clone file://{repository} at {first[:12]}\n" in shown.out
    second = _commit(repository, "two")
    locked = dora("build", "flow.yml", "--locked")
    assert f'n: branch "main" of file://{repository} is cloned at {first[:12]}\n' in locked.out
    assert f"at {second[:12]}\n" in dora("build", "flow.yml").out
    assert first in (tmp_path / "flow.dora-lock.yaml").read_text()
    clones = tmp_path / "git" / "localhost" / str(repository).lstrip("/")
    assert {path.name for path in clones.iterdir()} == {first, second, ".lock"}


def test_locked_without_a_lock_file(dora: Dora, tmp_path: Path, repository: Path) -> None:
    _write(tmp_path, f"  - {{id: n, path: node.py, git: 'file://{repository}'}}")
    shown = dora("build", "flow.yml", "--locked", "--lockfile", "other.yaml")
    assert shown.code == 1
    assert shown.err == (
        "[ERROR]\nother.yaml: the lock file does not exist;"
        " write it with `dora build --write-lockfile`\n"
    )


def test_locked_needs_no_lock_file_without_git_sources(dora: Dora, tmp_path: Path) -> None:
    _write(tmp_path, NODE.format("a", "true"))
    assert dora("build", "flow.yml", "--locked").code == 0


def test_an_unused_lock_file_option_is_a_warning(dora: Dora, hello: Path) -> None:
    shown = dora("build", hello.name, "--lockfile", "x")
    assert shown.code == 0
    assert shown.err == ("warning: --lockfile has no effect without --locked or --write-lockfile\n")


def test_offline_reports_the_missing_clone(dora: Dora, tmp_path: Path, repository: Path) -> None:
    _write(tmp_path, f"  - {{id: n, path: node.py, git: 'file://{repository}', branch: main}}")
    shown = dora("build", "flow.yml", "--offline")
    assert shown.code == 1
    assert f'branch "main" of file://{repository} was never cloned' in shown.err


@contextmanager
def building(folder: Path) -> Iterator[tuple[RunningDora, int]]:
    """A build whose build command runs until it is killed, with the command's process id."""
    (folder / "slow.py").write_text(
        "import os, signal\nprint('pid', os.getpid(), flush=True)\nsignal.pause()\n"
    )
    _write(folder, NODE.format("a", "python slow.py"))
    with running_dora("build", "flow.yml", cwd=folder) as running:
        running.wait_for("pid ")
        yield running, int(running.stdout.partition("pid ")[2].split()[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_build_and_its_commands(tmp_path: Path, number: signal.Signals) -> None:
    with building(tmp_path) as (running, pid):
        running.send_signal(number)
        ended = running.wait().exited(130)
    assert ended.stderr == (
        f"[ERROR]\nbuild interrupted by {number.name}; run it again to complete it\n"
    )
    wait_until(lambda: not _alive(pid), what="the end of the build command")


def test_a_killed_build_leaves_no_command(tmp_path: Path) -> None:
    with building(tmp_path) as (running, pid):
        running.send_signal(signal.SIGKILL)
        running.wait()
    wait_until(lambda: not _alive(pid), what="the end of the build command")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
