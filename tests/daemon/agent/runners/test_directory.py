"""A runtime directory belongs to a runner only while it contains the runner's token."""

from __future__ import annotations

import os
from pathlib import Path

from dora_config.protocol.runner import DataflowResult
from dora_daemon.agent.runners.directory import RunnerDirectory
from dora_daemon.process_tree.reaper import OWNER, RESULT, remove_directory
from dora_daemon.process_tree.runtime_dir import RuntimeDir


def create(root: Path, token: str) -> tuple[RuntimeDir, RunnerDirectory]:
    created = RuntimeDir.create(root)
    created.write(OWNER, token)
    return created, RunnerDirectory(created.path, token)


def test_runner_lives_while_it_holds_the_lock(tmp_path: Path) -> None:
    created, directory = create(tmp_path, "one")
    assert not directory.is_unlocked()
    os.close(created.lock_descriptor)
    assert directory.is_unlocked()
    assert not directory.was_removed()
    directory.clean_up()
    assert directory.was_removed()


def test_directory_of_another_runner_with_the_same_number_is_ignored(tmp_path: Path) -> None:
    first, directory = create(tmp_path, "one")
    os.close(first.lock_descriptor)
    remove_directory(str(first.path))  # as the reaper of a killed runner does
    second, _ = create(tmp_path, "two")
    assert second.path == first.path
    second.write(RESULT, DataflowResult(dataflow_id="d").model_dump_json())
    second.write("runner.log", "output of another runner")
    assert directory.is_unlocked()
    assert directory.result() is None
    assert directory.last_output() == ""
    directory.clean_up()
    assert (second.path / RESULT).exists()
    os.close(second.lock_descriptor)


def test_result_is_found_after_the_end_of_the_runner(tmp_path: Path) -> None:
    created, directory = create(tmp_path, "one")
    result = DataflowResult(dataflow_id="d", error="the runner failed")
    created.write(RESULT, result.model_dump_json())
    created.write("runner.log", "last line")
    created.release(keep=True)
    assert directory.is_unlocked()
    assert directory.result() == result
    assert directory.last_output() == "\n  last line"
    directory.clean_up()
    assert not created.path.exists()
