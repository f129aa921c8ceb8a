"""Files of a runner that cannot be written: a warning, and the nodes run on."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from dora_config.protocol.run_plan import RunPlan
from dora_daemon.process_tree.runtime_dir import RuntimeDir
from dora_daemon.runner.nodes.local_nodes import LocalNodes
from dora_daemon.runner.service import RunnerFiles

FULL = OSError(errno.ENOSPC, "No space left on device")


class FullDirectory:
    """A runtime directory on a full disk."""

    path = Path("/run/7")

    def fail(self, _: object) -> None:
        raise FULL

    write_index = record_process = record_mark = fail


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def files(warnings: list[str]) -> RunnerFiles:
    plan = SimpleNamespace(dataflow_id="d", name=None, machine_id=None, whole=True)
    return RunnerFiles(
        cast("RuntimeDir", FullDirectory()),
        cast("RunPlan", plan),
        LocalNodes(),
        False,
        warnings.append,
    )


def test_an_index_that_cannot_be_written_is_a_warning(
    files: RunnerFiles, warnings: list[str]
) -> None:
    files.write_index()
    assert warnings == [f"cannot write the index in /run/7: {FULL}"]


def test_processes_that_cannot_be_recorded_are_one_warning(
    files: RunnerFiles, warnings: list[str]
) -> None:
    files.record_mark("mark")
    for pid in (7, 8):
        files.record_process(pid)
    assert warnings == [f"cannot record processes in /run/7: {FULL}"]
