"""Folder of one recording: what it reports, and when another recorder is started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dora_config.protocol.recorders import (
    RecorderEnd,
    RecorderStatus,
    RecordingLimits,
    RecordingPlan,
)
from dora_config.protocol.recordings import ClockSample
from dora_recordings import status_file
from dora_recordings.recorders import folder as folder_module
from dora_recordings.recorders.folder import MAX_RECORDERS, RecordingFolder, RecordingRefused
from dora_recordings.status_file import StatusFile, identified

ID = "01a20e4b-f5a3-4858-99fe-d510d04b9561"
PLAN = RecordingPlan(recording=ID, dataflow_id="flow", name="patrol", machines=("robot",))


@pytest.fixture
def folder(tmp_path: Path) -> RecordingFolder:
    folder = RecordingFolder(tmp_path / ID)
    folder.save(PLAN)
    return folder


def add_status(folder: RecordingFolder, **values: object) -> None:
    """Write the report of the next recorder process, by default of this process."""
    file = StatusFile(folder.path / f"{len(folder.statuses())}.status")
    file.write(identified(**values))
    file.close()


def test_a_recorder_is_started_unless_one_runs(folder: RecordingFolder) -> None:
    assert folder.needs_recorder(new_attempt=False)
    assert folder.state(live=True).phase == "waiting"
    assert folder.state(live=False).phase == "ended"
    add_status(folder)
    assert not folder.needs_recorder(new_attempt=True)
    assert folder.state(live=True).phase == "recording"


@pytest.mark.parametrize("end", RecorderEnd)
def test_only_the_end_of_the_nodes_is_followed_by_another_recorder(
    folder: RecordingFolder, end: RecorderEnd
) -> None:
    add_status(folder, end=end)
    resumes = end in (RecorderEnd.DATAFLOW, RecorderEnd.RUNNER)
    assert not folder.needs_recorder(new_attempt=False)
    assert folder.needs_recorder(new_attempt=True) == resumes
    assert folder.state(live=False).resumes == resumes


def test_a_killed_recorder_is_replaced_and_reported(folder: RecordingFolder) -> None:
    add_status(folder, start_time=0, recorded={"a/b": 5})
    assert folder.needs_recorder(new_attempt=False)
    state = folder.state(live=True)
    assert state.phase == "waiting"
    assert state.problems[0].startswith("recorder 0 was killed: its file is readable up to")


def test_a_recorder_that_crashes_again_and_again_is_given_up(folder: RecordingFolder) -> None:
    for number in range(MAX_RECORDERS):
        assert folder.needs_recorder(new_attempt=False)
        (folder.path / f"{number}.status").touch()
    assert not folder.needs_recorder(new_attempt=False)
    assert not folder.needs_recorder(new_attempt=True)


def test_counts_of_all_recorders_are_added(folder: RecordingFolder) -> None:
    add_status(folder, end=RecorderEnd.RUNNER, recorded={"a/b": 5}, lost={"a/b": 1})
    problem = "/r.mcap: No space left on device"
    add_status(
        folder, end=RecorderEnd.FAILED, recorded={"a/b": 2, "c/d": 3}, lost={}, problem=problem
    )
    (folder.path / "robot-0.mcap").write_bytes(b"12345")
    state = folder.state(live=True)
    assert (state.recorded, state.lost) == ({"a/b": 7, "c/d": 3}, {"a/b": 1})
    assert state.problems == (problem,)
    assert [(file.name, file.size) for file in state.files] == [("robot-0.mcap", 5)]


def test_a_stopped_recording_gets_no_more_recorders(folder: RecordingFolder) -> None:
    add_status(folder)
    assert [one.pid for one in folder.stop()] == [os.getpid()]
    add_status(folder, end=RecorderEnd.RUNNER)
    assert not folder.needs_recorder(new_attempt=True)


def test_requests_for_recorders_continue_limits_and_numbers(folder: RecordingFolder) -> None:
    folder.save(
        PLAN.model_copy(update={"limits": RecordingLimits(max_bytes=100), "dataflow": "nodes: []"})
    )
    add_status(folder, end=RecorderEnd.RUNNER)
    (folder.path / "robot-0.mcap").write_bytes(bytes(60))
    request = folder.request("flow", "robot 1")
    assert request.path == str(folder.path / "robot_1-1.mcap")
    assert request.status_file == str(folder.path / "1.status")
    assert (request.limits.max_bytes, request.dataflow, request.none_is_fine) == (
        40,
        "nodes: []",
        True,
    )


def test_the_time_of_all_recorders_is_limited_together(folder: RecordingFolder) -> None:
    folder.save(PLAN.model_copy(update={"limits": RecordingLimits(max_seconds=60.0)}))
    assert folder.request("flow", "robot").limits.max_seconds == 60.0
    add_status(folder, start_time=0, seconds=42.5)  # killed
    assert folder.request("flow", "robot").limits.max_seconds == 17.5
    add_status(folder, start_time=0, seconds=20.0)
    assert folder.request("flow", "robot").limits.max_seconds == 0.0


def test_each_report_is_read_once(folder: RecordingFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    add_status(folder, end=RecorderEnd.RUNNER)
    add_status(folder)
    read: list[str] = []

    def read_status(path: Path) -> RecorderStatus | None:
        read.append(path.name)
        return status_file.read_status(path)

    monkeypatch.setattr(folder_module, "read_status", read_status)
    assert folder.state(live=True).phase == "recording"
    assert read == ["0.status", "1.status"]
    read.clear()
    assert folder.is_recording()
    assert read == ["1.status"]


def test_a_file_that_is_gone_is_an_error(folder: RecordingFolder) -> None:
    (folder.path / "robot-0.mcap").write_bytes(b"0123456789")
    with folder.open("robot-0.mcap") as file:
        assert file.read() == b"0123456789"
    with pytest.raises(RecordingRefused, match=r"robot-1\.mcap: No such file"):
        folder.open("robot-1.mcap")


def test_more_than_was_fetched_is_not_removed(folder: RecordingFolder) -> None:
    (folder.path / "robot-0.mcap").write_bytes(b"0123456789")
    fetched = folder.state(live=False).files
    (folder.path / "robot-1.mcap").write_bytes(b"0")
    with pytest.raises(RecordingRefused, match="has grown since it was fetched"):
        folder.remove(fetched)
    folder.remove(folder.state(live=False).files)
    assert not folder.exists
    folder.remove(fetched)


@pytest.mark.parametrize("end", [b'{"boot', b"\xff\x00"])
def test_clock_samples_survive_a_damaged_line(folder: RecordingFolder, end: bytes) -> None:
    sample = ClockSample(boot_id="b", monotonic_ns=1, coordinator_ns=2, round_trip_ns=3)
    folder.add_clock([sample])
    with (folder.path / "clock.jsonl").open("ab") as file:
        file.write(end + b"\n")
    folder.add_clock([sample])
    with (folder.path / "clock.jsonl").open("ab") as file:
        file.write(end)
    assert folder.describe().clock == (sample, sample)
    assert folder.describe().plan == PLAN


def test_a_recording_is_removed_when_it_has_ended(folder: RecordingFolder) -> None:
    add_status(folder)
    with pytest.raises(RecordingRefused, match="is in progress"):
        folder.remove()
    (folder.path / "0.status").unlink()
    folder.remove()
    assert not folder.exists
    with pytest.raises(RecordingRefused, match="this machine has no recording"):
        folder.plan()


def test_only_files_of_recorders_are_reported(folder: RecordingFolder) -> None:
    longest = f"{'m' * 200}-99_1000.mcap"
    for name in (longest, "a copy.mcap", ".robot-0.mcap"):
        (folder.path / name).touch()
    assert [file.name for file in folder.state(live=True).files] == [longest]
