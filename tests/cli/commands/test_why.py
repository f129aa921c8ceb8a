"""`dora why` without a coordinator: events in files below `./out`, and a run that runs."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest
from support.command_line import Dora
from support.dora import run_dora, running_dora
from support.runner.histories import entry, failed, restarting
from support.waiting import wait_until
from support.workspace import Workspace

from dora_config.history.entries import RunBegan, RunEnded
from dora_config.history.file import HistoryFile

OLD = "11111111-0000-4000-8000-000000000000"
NEW = "22222222-0000-4000-8000-000000000000"
BEGAN = RunBegan(name="demo", nodes=("camera",), pid=42)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs: one that has failed, and an earlier one that was killed."""
    killed = HistoryFile(tmp_path / "out" / OLD / "history.jsonl")
    killed.append(entry(100.0, BEGAN.model_copy(update={"name": "old"})))
    ended = HistoryFile(tmp_path / "out" / NEW / "history.jsonl")
    for one in (
        entry(1000.0, BEGAN),
        restarting(1001.5, "camera", delay=0.5),
        failed(1003.0, "camera", "exited with code 1; max restarts (1) exceeded"),
        entry(1003.5, RunEnded(ok=False)),
    ):
        ended.append(one)
    os.utime(killed.path, (101.0, 101.0))
    return tmp_path


def test_the_newest_run_as_json(dora: Dora, runs: Path) -> None:
    shown = dora("why", "--local", "--format", "json")
    assert (shown.code, shown.err) == (0, "")
    explained = json.loads(shown.out)
    explained.pop("now")
    cause = {
        "at": 1001.5,
        "machine": None,
        "node": "camera",
        "text": 'node "camera" exited with code 1',
        "stderr": ["boom"],
        "resolved_at": None,
    }
    common = {"machine": None, "node": "camera", "problem": True}
    assert explained == {
        "uuid": NEW,
        "name": "demo",
        "status": "Failed",
        "summary": 'node "camera" exited with code 1',
        "cause": cause,
        "timeline": [
            {
                **common,
                "at": 1001.5,
                "text": "exited with code 1; restart 1 in 0.5 s",
                "role": "cause",
            },
            {
                **common,
                "at": 1003.0,
                "text": "failed: exited with code 1; max restarts (1) exceeded",
                "role": "consequence",
            },
            {
                "machine": None,
                "node": None,
                "problem": False,
                "at": 1003.5,
                "text": "all nodes have ended",
                "role": "reaction",
            },
        ],
        "findings": [],
        "waits_for": [],
        "notes": [],
    }


def test_a_run_by_the_start_of_its_uuid_or_its_name(dora: Dora, runs: Path) -> None:
    for word in (OLD[:8], "old"):
        shown = dora("why", word, "--local")
        assert shown.code == 0
        assert shown.out.splitlines()[0] == f'Dataflow "old" ({OLD}): Failed'
        assert "the runner (process 42) ended without a result: it was killed" in shown.out


def test_without_a_coordinator_the_files_are_read(dora: Dora, runs: Path) -> None:
    shown = dora("why", "--coordinator-port", "1")
    assert shown.code == 0
    assert shown.err == "no coordinator answers: reading the history below ./out\n"
    assert shown.out.startswith(f'Dataflow "demo" ({NEW}): Failed\n')


def test_wrong_names_and_folders(dora: Dora, runs: Path) -> None:
    shown = dora("why", "other", "--local")
    assert (shown.code, shown.out) == (1, "")
    assert shown.err == (
        f'[ERROR]\nno history of "other" here; dataflows with history, newest first:\n'
        f"  {NEW} (demo)\n  {OLD} (old)\n"
    )


def test_an_empty_name_is_not_the_start_of_every_uuid(dora: Dora, runs: Path) -> None:
    assert dora("why", "", "--local").code == 1


def test_a_folder_without_runs(dora: Dora, tmp_path: Path) -> None:
    shown = dora("why", "--local")
    assert (shown.code, shown.out) == (1, "")
    assert shown.err.startswith("[ERROR]\nno history of dataflows in ")


@pytest.mark.integration
def test_what_a_living_run_waits_for_is_known_from_its_runner(workspace: Workspace) -> None:
    workspace.node("slow", "import time\ntime.sleep(600)\n")
    flow = workspace.dataflow({"nodes": [{"id": "slow", "path": "slow.py", "outputs": ["x"]}]})

    def waits_for() -> str:
        words = ("why", "--local", "--format", "json", "--archive", "report.tar.gz")
        shown = run_dora(*words, cwd=workspace.path)
        return " ".join(json.loads(shown.stdout)["waits_for"]) if shown.code == 0 else ""

    with running_dora("run", flow, cwd=workspace.path) as run:
        text = wait_until(waits_for, what="the node")
        assert text.startswith('node "slow" on machine ')
        assert "must create its `Node()`" in text
        with tarfile.open(workspace.path / "report.tar.gz") as report:
            assert "dora-report/metrics.json" in report.getnames()
        run.interrupt()
        run.interrupt()
        run.wait()
