"""Commands that are forked by the tests show what a new program shows."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from support import fork_server
from support.dora import DORA, run_dora, running_dora
from support.leftovers import Before

COMMANDS = [("--version",), ("list", "--nonsense"), ("validate", "missing.yml"), ("--help",)]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_output_and_exit_code_are_the_same(words: tuple[str, ...], tmp_path: Path) -> None:
    forked = run_dora(*words, cwd=tmp_path)
    program = run_dora(*words, cwd=tmp_path, program=(DORA,))
    assert forked == program


def test_variables_folder_and_standard_input_are_those_of_the_command(tmp_path: Path) -> None:
    path = tmp_path / "home"
    content = "nodes:\n  - id: a\n    path: ${WHERE}.py\n"
    (tmp_path / "flow.yml").write_text(content)
    (tmp_path / "here.py").touch()
    done = run_dora("validate", "flow.yml", cwd=tmp_path, env={"DORA_X": "1", "HOME": str(path)})
    assert "WHERE" in done.output
    run_dora("new", "own", cwd=tmp_path).succeeded()
    assert (tmp_path / "own").is_dir()


def test_signals_reach_the_command(tmp_path: Path) -> None:
    with running_dora("coordinator", "--port", "0", cwd=tmp_path) as running:
        running.wait_for("Listening on port ")
        assert isinstance(running.process, fork_server.Forked)
        assert os.getsid(running.pid) == running.pid
        running.kill()
        assert running.result().code == -signal.SIGKILL


def test_what_a_variable_could_change_at_its_start_is_a_new_program(tmp_path: Path) -> None:
    env = {"PYTHONWARNINGS": "error"}
    with running_dora("coordinator", "--port", "0", cwd=tmp_path, env=env) as running:
        running.wait_for("Listening on port ")
        assert not isinstance(running.process, fork_server.Forked)


def test_a_command_that_goes_on_is_a_leftover(tmp_path: Path) -> None:
    before = Before.now("tag")
    with running_dora("coordinator", "--port", "0", cwd=tmp_path) as running:
        running.wait_for("Listening on port ")
        assert before.processes() == [running.pid]
    assert before.processes() == []
