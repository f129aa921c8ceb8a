"""Recorder processes of a machine: what the daemon does at each heartbeat."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import anyio
import pytest
from anyio.abc import TaskGroup
from support.waiting import wait_until_async

from dora_config.access import Endpoint
from dora_config.protocol.daemon import HeartbeatAck
from dora_config.protocol.recorders import RecorderEnd, RecordingPlan
from dora_config.protocol.recordings import (
    ClockSample,
    ListRecordings,
    RecordingStates,
)
from dora_recordings.recorders import folder as folder_module
from dora_recordings.recorders.folder import RecordingFolder
from dora_recordings.recorders.service import Recorders
from dora_recordings.status_file import StatusFile, identified, read_status

RUNNING = "01a20e4b-f5a3-4858-99fe-d510d04b9561"
ENDED = "11a20e4b-f5a3-4858-99fe-d510d04b9561"


def recording(root: Path, name: str, end: RecorderEnd | None) -> RecordingFolder:
    folder = RecordingFolder(root / name)
    folder.save(RecordingPlan(recording=name, dataflow_id="flow"))
    file = StatusFile(folder.path / "0.status")
    file.write(identified(end=end))
    file.close()
    return folder


def test_the_time_is_noted_without_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []

    def read(path: Path) -> object:
        threads.append(threading.get_ident())
        return read_status(path)

    monkeypatch.setattr(folder_module, "read_status", read)
    folders = [recording(tmp_path, RUNNING, None), recording(tmp_path, ENDED, RecorderEnd.LIMIT)]
    anyio.run(heartbeats, tmp_path, monkeypatch, 1, 12)
    samples = [len(folder.describe().clock) for folder in folders]
    assert samples == [1, 0]
    assert len(threads) == 2
    assert threading.get_ident() not in threads


def test_the_time_is_noted_again_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    add = RecordingFolder.add_clock
    errors = [OSError(28, "No space left on device")]

    def full_once(folder: RecordingFolder, samples: list[ClockSample]) -> None:
        if errors:
            raise errors.pop()
        add(folder, samples)

    monkeypatch.setattr(RecordingFolder, "add_clock", full_once)
    folder = recording(tmp_path, RUNNING, None)
    anyio.run(heartbeats, tmp_path, monkeypatch, 1, 12, 23, 34)
    assert len(folder.describe().clock) == 1
    assert "no clock sample for a recording: " in caplog.text


def test_a_recording_that_is_being_removed_is_not_listed(tmp_path: Path) -> None:
    leaving, staying = recording(tmp_path, ENDED, None), recording(tmp_path, RUNNING, None)
    (leaving.path / "robot-0.mcap").symlink_to("removed")
    assert anyio.run(listed, tmp_path) == [staying.path.name]


def recorders_of(tasks: TaskGroup, root: Path) -> Recorders:
    there = Endpoint("127.0.0.1", 1)
    return Recorders(tasks, root, "robot", lambda: there, lambda _: True, lambda _: None)


async def listed(root: Path) -> list[str]:
    async with anyio.create_task_group() as tasks:
        recorders = recorders_of(tasks, root)
        reply = await recorders.call(ListRecordings())
    assert isinstance(reply, RecordingStates)
    return [state.recording for state in reply.recordings]


async def heartbeats(root: Path, monkeypatch: pytest.MonkeyPatch, *seconds: int) -> None:
    """Acknowledge heartbeats at these times."""
    async with anyio.create_task_group() as tasks:
        recorders = recorders_of(tasks, root)
        for second in seconds:
            now = second * 10**9
            monkeypatch.setattr(time, "monotonic_ns", lambda now=now: now)
            recorders.acknowledged(HeartbeatAck(monotonic_ns=now - 10, coordinator_ns=now))
            await wait_until_async(lambda: not recorders._adds_clock, what="the sample")
