"""Commands of a build: output, exit codes, and the end of their process groups."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import anyio
import pytest
from support.waiting import wait_until

from dora_daemon.build.command import MAX_LINE, CommandResult, run_command


def _run(
    program: str, cwd: Path, *, env: Mapping[str, str] = os.environ
) -> tuple[CommandResult, list[str]]:
    lines: list[str] = []

    async def run() -> CommandResult:
        return await run_command(
            [sys.executable, "-c", program], cwd=cwd, env=env, on_line=lines.append
        )

    return anyio.run(run), lines


def _has_ended(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_output_of_both_streams_comes_line_by_line(tmp_path: Path) -> None:
    outcome, lines = _run(
        "import sys; print('a', flush=True); sys.stderr.write('b\\n10%\\r20%\\r');"
        "print('c', end='')",
        tmp_path,
    )
    assert outcome == CommandResult(0, ("a", "b", "10%", "20%", "c"))
    assert lines == ["a", "b", "10%", "20%", "c"]


def test_exit_codes_and_signals_are_reported(tmp_path: Path) -> None:
    outcome, _ = _run("raise SystemExit(3)", tmp_path)
    assert (outcome.exit_code, str(outcome), outcome.ok) == (3, "exit code 3", False)
    outcome, _ = _run("import os; os.kill(os.getpid(), 9)", tmp_path)
    assert (outcome.exit_code, str(outcome)) == (-9, "ended by SIGKILL")


def test_invalid_utf8_and_endless_lines_are_handled(tmp_path: Path) -> None:
    outcome, lines = _run(
        "import os; os.write(1, b'\\xff\\xfe\\n'); os.write(1, b'x' * 1_000_000)", tmp_path
    )
    assert outcome.ok
    assert lines[0] == "��"
    assert lines[1] == "x" * MAX_LINE


def test_a_background_process_does_not_hold_up_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dora_daemon.build.command.HELD_OPEN_GRACE", 0.05)
    program = (
        "import subprocess, sys;"
        "print(subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE).pid)"
    )
    outcome, lines = _run(program, tmp_path)
    assert outcome.ok
    pid = int(lines[0])
    wait_until(partial(_has_ended, pid), what="the end of the background process")


@pytest.mark.parametrize("ignores", ["", "import signal; signal.signal(15, signal.SIG_IGN);"])
def test_cancelling_ends_the_whole_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ignores: str
) -> None:
    monkeypatch.setattr("dora_daemon.build.command.STOP_GRACE", 0.2)
    child = "import signal; signal.pause()"
    program = (
        f"{ignores} import subprocess, sys, os;"
        f"child = subprocess.Popen([sys.executable, '-c', {ignores + child!r}]);"
        "print(os.getpid(), child.pid, flush=True); child.wait()"
    )
    program = program.lstrip()
    pids: list[int] = []

    async def cancel_when_running() -> None:
        async with anyio.create_task_group() as tasks:

            def keep(line: str) -> None:
                pids.extend(map(int, line.split()))
                tasks.cancel_scope.cancel()

            await run_command(
                [sys.executable, "-c", program], cwd=tmp_path, env=os.environ, on_line=keep
            )

    anyio.run(cancel_when_running)
    assert len(pids) == 2
    for pid in pids:
        wait_until(partial(_has_ended, pid), what=f"the end of {pid}")


def test_a_missing_program_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        anyio.run(lambda: run_command(["no-such-program"], cwd=tmp_path, env={}))
