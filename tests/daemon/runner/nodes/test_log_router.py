"""Warnings that the history keeps, or of lines that cannot be sent; last lines of stderr."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.runner.nodes import node

from dora_config.dataflow.resolved import ResolvedDataflow
from dora_config.history.entries import RunnerWarned
from dora_config.protocol.run_plan import RunPlan
from dora_config.protocol.runner_events import LogLine
from dora_daemon.runner.logs.log_files import LogFile
from dora_daemon.runner.logs.logs import TAIL_LINES, NodeLog
from dora_daemon.runner.nodes.log_router import LogRouter


def test_warning_about_a_program_belongs_to_its_node(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    added: list[Any] = []
    logged: list[Any] = []
    plan = RunPlan(dataflow_id="d", resolved=ResolvedDataflow(nodes=()), working_dir="/")
    router = LogRouter(
        plan,
        cast("Any", {}),
        cast("Any", SimpleNamespace(log_queues={})),
        logged.append,
        cast("Any", SimpleNamespace(add=added.append)),
        LogFile(tmp_path / "d" / "log"),
    )
    log = SimpleNamespace(create_file=lambda: None)
    monkeypatch.setattr(router, "new_log", lambda prepared: log)
    prepared = SimpleNamespace(spec=SimpleNamespace(id="n"), warnings=("core 9 does not exist",))
    assert router.open_log(cast("Any", prepared)) is cast("Any", log)
    assert added == [RunnerWarned(level="warn", text="core 9 does not exist", node="n")]
    (line,) = logged
    assert isinstance(line, LogLine)
    assert line.message == 'node "n": core 9 does not exist'


def test_a_runner_without_free_descriptors_warns_once(tmp_path: Path) -> None:
    def send_text(output: str, text: str) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    logged: list[Any] = []
    plan = RunPlan(dataflow_id="d", resolved=ResolvedDataflow(nodes=()), working_dir="/")
    router = LogRouter(
        plan,
        cast("Any", {}),
        cast("Any", SimpleNamespace(send_text=send_text, log_queues={})),
        logged.append,
        cast("Any", SimpleNamespace(add=lambda event: None)),
        LogFile(tmp_path / "d" / "log"),
    )
    router.forward((("viewer", "logs"),), "line")
    router.forward((("viewer", "logs"),), "line")
    (line,) = logged
    assert line.message == "cannot send log lines as samples: [Errno 24] Too many open files"


def test_the_last_lines_of_stderr_are_kept_without_their_ends(tmp_path: Path) -> None:
    router = SimpleNamespace(to_subscribers=lambda entry: None, show=lambda entry: True, gate=None)
    log = NodeLog(node("a"), LogFile(tmp_path / "log"), cast("Any", router))
    log.take("stderr", ["x" * 1_000_000] * 3 + ["short"] * (TAIL_LINES - 1))
    log.close()
    assert list(log.tail) == ["x" * 2000] + ["short"] * (TAIL_LINES - 1)
    assert len((tmp_path / "log").read_text()) > 3_000_000
