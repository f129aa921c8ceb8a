"""Recorder processes of a machine: what the daemon does at each heartbeat."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import anyio
import pytest

from dora_config.protocol.daemon import HeartbeatAck
from dora_config.protocol.recordings.fleet import ListRecordings, RecordingPlan, RecordingStates
from dora_config.protocol.recordings.recorder import RecorderEnd
from dora_daemon.agent.recorders import folder as folder_module
from dora_daemon.agent.recorders.folder import RecordingFolder
from dora_daemon.agent.recorders.service import Recorders
from dora_daemon.recording.status_file import StatusFile, identified, read_status

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
    anyio.run(heartbeats, tmp_path, monkeypatch)
    samples = [len(folder.describe().clock) for folder in folders]
    assert samples == [1, 0]
    assert len(threads) == 2
    assert threading.get_ident() not in threads


def test_a_recording_that_is_being_removed_is_not_listed(tmp_path: Path) -> None:
    leaving, staying = recording(tmp_path, ENDED, None), recording(tmp_path, RUNNING, None)
    (leaving.path / "robot-0.mcap").symlink_to("removed")
    assert anyio.run(listed, tmp_path) == [staying.path.name]


async def listed(root: Path) -> list[str]:
    async with anyio.create_task_group() as tasks:
        recorders = Recorders(tasks, root, "robot", lambda _: True, lambda _: None)
        reply = await recorders.call(ListRecordings())
    assert isinstance(reply, RecordingStates)
    return [state.recording for state in reply.recordings]


async def heartbeats(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Acknowledge two heartbeats that are eleven seconds apart."""
    async with anyio.create_task_group() as tasks:
        recorders = Recorders(tasks, root, "robot", lambda _: True, lambda _: None)
        for second in (1, 12):
            now = second * 10**9
            monkeypatch.setattr(time, "monotonic_ns", lambda now=now: now)
            recorders.acknowledged(HeartbeatAck(monotonic_ns=now - 10, coordinator_ns=now))
