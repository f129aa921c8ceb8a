"""Recorder processes: a stop during their start, and starts that fail."""

from __future__ import annotations

import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from support.simulation.fleets import dataflow
from support.waiting import wait_until_async

from dora_config.access import Endpoint
from dora_config.protocol.recorders import RecordingPlan
from dora_config.protocol.recordings import (
    ListRecordings,
    RecordingState,
    RecordingStates,
    RemoveRecording,
    StopRecording,
)
from dora_daemon.agent.events import RecorderSettled, RecordingRequested
from dora_daemon.agent.records import PartRecord
from dora_daemon.inspection import process
from dora_recordings.recorders.folder import RecordingFolder
from dora_recordings.recorders.service import Recorders

ID = "01a20e4b-f5a3-4858-99fe-d510d04b9561"
MORE_THAN_A_PIPE_HOLDS = "x" * 200_000
PLAN = RecordingPlan(
    recording=ID,
    dataflow_id="flow",
    name="patrol",
    machines=("robot",),
    dataflow=MORE_THAN_A_PIPE_HOLDS,
)
PART = PartRecord(
    dataflow_id="flow", attempt=1, spec=dataflow().model_copy(update={"recording": PLAN})
)
Posted = list[RecorderSettled | RecordingRequested]


def with_recorders(root: Path, work: Callable[[Recorders, Posted], Awaitable[None]]) -> None:
    async def main() -> None:
        posted: Posted = []
        async with anyio.create_task_group() as tasks:
            there = Endpoint("127.0.0.1", 1)
            recorders = Recorders(
                tasks, root, "robot", lambda: there, lambda dataflow: True, posted.append
            )
            recorders.start(PART, new_attempt=True)
            await work(recorders, posted)

    anyio.run(main)


async def listed(recorders: Recorders) -> list[RecordingState]:
    reply = await recorders.call(ListRecordings())
    assert isinstance(reply, RecordingStates)
    return list(reply.recordings)


def test_stop_reaches_a_recorder_without_a_status_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(recorders: Recorders, posted: Posted) -> None:
        await wait_until_async(lambda: bool(recorders._starting), what="the recorder")
        recorder = recorders._starting[ID]
        await recorders.call(StopRecording(recording=ID))
        await wait_until_async(lambda: bool(posted), what="the end of the start")
        (state,) = await listed(recorders)
        assert state.problems == ()
        assert state.phase == "ended"
        assert recorder.wait() == -15

    monkeypatch.setattr(process, "run_module", lambda _: ["sh", "-c", "exec sleep 1000"])
    with_recorders(tmp_path, work)


def test_recorder_that_cannot_be_started_is_reported_until_its_recording_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> object:
        raise OSError(24, "Too many open files")

    async def work(recorders: Recorders, posted: Posted) -> None:
        await wait_until_async(lambda: bool(posted), what="the end of the start")
        (state,) = await listed(recorders)
        assert state.problems == ("a recorder could not be started: Too many open files",)
        assert state.phase == "ended"
        await recorders.call(RemoveRecording(recording=ID))
        assert await listed(recorders) == []
        assert not recorders._not_started

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with_recorders(tmp_path, work)


def test_a_recording_that_cannot_be_created_does_not_delay_the_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(folder: RecordingFolder, _: RecordingPlan) -> None:
        raise OSError(28, "No space left on device", str(folder.path))

    async def work(recorders: Recorders, posted: Posted) -> None:
        await wait_until_async(lambda: bool(posted), what="the end of the start")
        assert posted == [RecorderSettled("flow")]
        assert await listed(recorders) == []

    monkeypatch.setattr(RecordingFolder, "save", full)
    with_recorders(tmp_path, work)
    assert f"cannot record: {tmp_path / ID}: No space left on device" in caplog.text


def test_recorder_that_ends_before_it_reads_its_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(recorders: Recorders, posted: Posted) -> None:
        await wait_until_async(lambda: bool(posted), what="the end of the start")
        (state,) = await listed(recorders)
        (problem,) = state.problems
        assert problem.startswith("a recorder could not be started; its error is in the log")
        for started in recorders._processes:
            started.wait()

    monkeypatch.setattr(process, "run_module", lambda _: ["true"])
    with_recorders(tmp_path, work)
