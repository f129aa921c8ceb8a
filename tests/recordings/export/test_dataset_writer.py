"""Files of a dataset: when the next one begins, and what is left after an error."""

from __future__ import annotations

import errno
import gc
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from dora_recordings.export import dataset_writer
from dora_recordings.export.dataset_writer import DatasetWriter, Feature
from dora_recordings.export.video import VideoFile

FPS = 10
CAMERA = Feature("observation.images.c", (16, 32, 3))
STATE = Feature("observation.state", (2,), ("a", "b"))
VALUES = {CAMERA.name: np.zeros((16, 32, 3), np.uint8), STATE.name: (1.0, 2.0)}


def writer(folder: Path) -> DatasetWriter:
    return DatasetWriter(folder, [CAMERA, STATE], FPS, None)


def add_episode(writer: DatasetWriter, frames: int = 3) -> None:
    writer.begin("task")
    for frame in range(frames):
        writer.add(VALUES, frame / FPS)
    writer.end()


def episodes(folder: Path) -> list[dict[str, Any]]:
    table = pq.read_table(folder / "meta/episodes/chunk-000/file-000.parquet")
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def test_full_files_are_followed_by_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_writer, "DATA_MB", 0)
    monkeypatch.setattr(dataset_writer, "VIDEO_MB", 0)
    monkeypatch.setattr(dataset_writer, "CHUNK_FILES", 2)
    written = writer(tmp_path)
    for frames in (3, 4, 5):
        add_episode(written, frames)
    written.close()
    place = f"videos/{CAMERA.name}"
    found = episodes(tmp_path)
    assert [(one["data/chunk_index"], one["data/file_index"]) for one in found] == [
        (0, 0),
        (0, 1),
        (1, 0),
    ]
    assert [(one[f"{place}/chunk_index"], one[f"{place}/file_index"]) for one in found] == [
        (0, 0),
        (0, 1),
        (1, 0),
    ]
    assert [one[f"{place}/from_timestamp"] for one in found] == [0.0, 0.0, 0.0]
    assert [one["dataset_from_index"] for one in found] == [0, 3, 7]
    for name, frames in (("000/file-000", 3), ("000/file-001", 4), ("001/file-000", 5)):
        assert pq.read_table(tmp_path / f"data/chunk-{name}.parquet").num_rows == frames
        with av.open(str(tmp_path / f"{place}/chunk-{name}.mp4")) as container:
            assert len(list(container.decode(video=0))) == frames


def test_episodes_share_files_that_are_not_full(tmp_path: Path) -> None:
    written = writer(tmp_path)
    add_episode(written, 3)
    add_episode(written, 4)
    written.close()
    first, second = episodes(tmp_path)
    assert (first["data/file_index"], second["data/file_index"]) == (0, 0)
    assert second[f"videos/{CAMERA.name}/from_timestamp"] == pytest.approx(0.3)


def open_files(folder: Path) -> list[str]:
    """Return the open files below a folder, deleted ones too."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the descriptor of the listing
            found.append(str(descriptor.readlink()))
    return [path for path in found if path.startswith(str(folder))]


def test_abandoned_files_are_closed_although_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    written = writer(tmp_path / "dataset")
    add_episode(written)
    written.begin("task")
    written.add(VALUES, 0.0)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(pq.ParquetWriter, "close", full)
        written.abandon()
    shutil.rmtree(tmp_path / "dataset")
    del written
    gc.collect()
    assert open_files(tmp_path) == []
    assert capfd.readouterr().err == "", "a destructor has closed a file again"


def test_video_that_cannot_be_finished_is_closed_when_abandoned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    abandoned: list[VideoFile] = []
    abandon = VideoFile.abandon

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def note(video: VideoFile) -> None:
        abandoned.append(video)
        abandon(video)

    monkeypatch.setattr(VideoFile, "close", fail)
    monkeypatch.setattr(VideoFile, "abandon", note)
    written = writer(tmp_path)
    add_episode(written)
    with pytest.raises(OSError, match="No space left"):
        written.close()
    written.abandon()
    assert len(abandoned) == 1


def test_episodes_with_inexact_times_are_listed(tmp_path: Path) -> None:
    written = writer(tmp_path)
    add_episode(written)
    written.begin("task")
    written.add(VALUES, 0.0)
    written.add(VALUES, 2049.0)
    written.end()
    written.close()
    assert written.long_episodes == [1]
