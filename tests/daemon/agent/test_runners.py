"""A runner's directory is its own only as long as its token lies in it."""

from __future__ import annotations

import os
from pathlib import Path

from dora_config.protocol.runner import DataflowResult
from dora_daemon.agent.runners import _Home
from dora_daemon.runner.guardian import OWNER, RESULT, remove_directory
from dora_daemon.runner.runtime_dir import RuntimeDir


def make(root: Path, token: str) -> tuple[RuntimeDir, _Home]:
    directory = RuntimeDir.create(root)
    directory.write(OWNER, token)
    return directory, _Home(directory.path, token)


def test_a_runner_that_holds_its_lock_lives(tmp_path: Path) -> None:
    directory, home = make(tmp_path, "one")
    assert not home.is_left()
    os.close(directory.lock_descriptor)
    assert home.is_left()
    home.clean_up()
    assert not directory.path.exists()


def test_a_number_that_was_given_to_another_runner_is_not_mistaken(tmp_path: Path) -> None:
    first, home = make(tmp_path, "one")
    os.close(first.lock_descriptor)
    remove_directory(str(first.path))  # as the guardian of a killed runner does
    second, _ = make(tmp_path, "two")
    assert second.path == first.path
    second.write(RESULT, DataflowResult(dataflow_id="d").model_dump_json())
    second.write("runner.log", "words of another")
    assert home.is_left()
    assert home.result() is None
    assert home.last_words() == ""
    home.clean_up()
    assert (second.path / RESULT).exists()
    os.close(second.lock_descriptor)


def test_a_result_that_nobody_was_there_to_hear_is_found_later(tmp_path: Path) -> None:
    directory, home = make(tmp_path, "one")
    result = DataflowResult(dataflow_id="d", error="the runner failed")
    directory.write(RESULT, result.model_dump_json())
    directory.write("runner.log", "last words")
    directory.release(keep=True)
    assert home.is_left()
    assert home.result() == result
    assert home.last_words() == "\n  last words"
    home.clean_up()
    assert not directory.path.exists()
