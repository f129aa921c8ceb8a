"""A run that does not answer delays no other."""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from typing import NoReturn

import anyio
import pytest

from dora_cli.coordinator.errors import RequestFailed
from dora_cli.ui.local import runs
from dora_cli.ui.local.runner_calls import LocalRun
from dora_config.protocol.control import DataflowList, GetSnapshot, ListDataflows
from dora_config.protocol.snapshot import Snapshot
from dora_daemon.process_tree.runner_index import CONTROL_SOCKET, IndexEntry

UUID = "8a1c7a86-5b3c-4dd2-9f3e-6c1a3a9b1c11"


def test_a_suspended_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = IndexEntry(UUID, "lidar", ("scanner",), (), 1, 1, "", foreground=True)
    monkeypatch.setattr(runs, "local_runs", lambda _: [LocalRun(tmp_path, entry)])
    monkeypatch.setattr(runs, "STATE_SECONDS", 0.1)

    async def check() -> None:
        backend = runs.LocalRuns(None)
        listed = await backend.request(ListDataflows())
        assert isinstance(listed, DataflowList)
        assert [(row.name, row.nodes) for row in listed.dataflows] == [("lidar", 1)]
        snapshot = await backend.request(GetSnapshot())
        assert isinstance(snapshot, Snapshot)
        (problem,) = snapshot.problems
        assert 'the run "lidar" has not answered' in problem

    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(tmp_path)  # the path may be too long for a socket
        listener.bind(CONTROL_SOCKET)
        listener.listen()
        anyio.run(check)


def test_an_error_of_a_file_is_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> NoReturn:
        raise PermissionError(errno.EACCES, "Permission denied", "run/1")

    monkeypatch.setattr(runs, "local_runs", fail)
    with pytest.raises(RequestFailed, match=r"^run/1: Permission denied$"):
        anyio.run(runs.LocalRuns(None).request, ListDataflows())
