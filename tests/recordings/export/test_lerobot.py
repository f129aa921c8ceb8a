"""LeRobot v3 datasets, compared with the published format.

The loader of the `lerobot` package needs torch, so it is not part of these tests; see
docs/howto/record.md.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recordings.export.recorded_messages import message

from dora_recordings.arrow_messages import RecordedMessage
from dora_recordings.conversion import CannotConvert
from dora_recordings.export.lerobot import LeRobotOptions, export_lerobot

FPS = 10
PERIOD = 100_000_000
JITTER = (0, 7_000_000, -9_000_000, 12_000_000)
SIZE = {"width": 32, "height": 16, "encoding": "rgb8", "primitive": "image"}
KEY = "observation.images.camera_image"
OPTIONS = LeRobotOptions(
    state="arm/joints", action="leader/joints", episodes="keys/command", task="pick"
)


def color(number: int) -> tuple[int, int, int]:
    return (number * 10 % 250, 120, 200 - number * 5 % 150)


def recorded(frames: int = 24) -> Iterator[RecordedMessage]:
    """Two episodes, of frames 2 to 11 and 14 to the end; frame 17 is missing."""
    for number in range(frames):
        at = 10**9 + number * PERIOD + JITTER[number % len(JITTER)]
        commands = {2: ("start", {"task": "place"}), 12: ("stop", None), 14: ("start", None)}
        if number in commands:
            word, metadata = commands[number]
            yield message("keys/command", [word], metadata, at=at - 20_000_000)
        joints = np.array([number, number / 2], np.float32)
        yield message("arm/joints", joints, {"primitive": "jointstate"}, at=at - 2000)
        if number != 17:
            pixels = np.full((16, 32, 3), color(number), np.uint8).ravel()
            yield message("camera/image", pixels, SIZE, at=at)
        yield message("leader/joints", joints + 1, {"names": ["pan", "lift"]}, at=at + 1000)


def dataset(path: Path, options: LeRobotOptions = OPTIONS) -> Path:
    export_lerobot(recorded, None, options, path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("lerobot") / "dataset")


def rows(folder: Path) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = pq.read_table(
        folder / "data/chunk-000/file-000.parquet"
    ).to_pydict()
    return found


def episodes(folder: Path) -> list[dict[str, Any]]:
    table = pq.read_table(folder / "meta/episodes/chunk-000/file-000.parquet")
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def test_info_describes_the_dataset(folder: Path) -> None:
    info = json.loads((folder / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert (info["fps"], info["total_episodes"], info["total_frames"]) == (FPS, 2, 20)
    assert info["splits"] == {"train": "0:2"}
    assert info["features"]["observation.state"] == {
        "dtype": "float32",
        "shape": [2],
        "names": ["joint_0", "joint_1"],
    }
    assert info["features"]["action"]["shape"] == [2]
    assert info["features"]["action"]["names"] == ["pan", "lift"]
    assert info["features"][KEY]["dtype"] == "video"
    assert info["features"][KEY]["shape"] == [16, 32, 3]
    data = info["data_path"].format(chunk_index=0, file_index=0)
    video = info["video_path"].format(video_key=KEY, chunk_index=0, file_index=0)
    assert (folder / data).is_file()
    assert (folder / video).is_file()


def test_rows_have_the_values_at_their_times(folder: Path) -> None:
    table = rows(folder)
    assert table["episode_index"] == [0] * 10 + [1] * 10
    assert table["frame_index"] == [*range(10), *range(10)]
    assert table["index"] == list(range(20))
    assert table["timestamp"][:10] == pytest.approx([place / FPS for place in range(10)])
    assert table["observation.state"][0] == [2.0, 1.0]
    assert table["action"][9] == [12.0, 6.5]
    # frame 17 of the recording is repeated, at its place
    assert table["timestamp"][13] == pytest.approx(0.3)
    assert table["observation.state"][13] == table["observation.state"][12] == [16.0, 8.0]


def test_tasks_are_an_index_of_pandas(folder: Path) -> None:
    table = pq.read_table(folder / "meta/tasks.parquet")
    assert table.to_pydict() == {"task_index": [0, 1], "task": ["place", "pick"]}
    assert json.loads(table.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    assert rows(folder)["task_index"] == [0] * 10 + [1] * 10
    assert [one["tasks"] for one in episodes(folder)] == [["place"], ["pick"]]


def test_loaders_find_each_frame_by_its_time_and_by_its_number(folder: Path) -> None:
    """One loader seeks to a time, another computes a number from the average frame rate."""
    table, found = rows(folder), episodes(folder)
    with av.open(str(folder / f"videos/{KEY}/chunk-000/file-000.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == FPS
        frames = [(float(one.time), one.to_ndarray(format="rgb24")) for one in container.decode()]
    assert len(frames) == 20
    shown = [*range(2, 12), 14, 15, 16, 16, *range(18, 24)]
    for index, seconds in enumerate(table["timestamp"]):
        begin = found[table["episode_index"][index]][f"videos/{KEY}/from_timestamp"]
        time, pixels = frames[round((begin + seconds) * FPS)]
        assert time == pytest.approx(begin + seconds, abs=1e-4)
        assert np.abs(pixels[8, 16].astype(int) - color(shown[index])).max() < 12
    assert found[1][f"videos/{KEY}/to_timestamp"] == pytest.approx(2.0)


def test_statistics_have_the_shapes_that_loaders_expect(folder: Path) -> None:
    statistics = json.loads((folder / "meta/stats.json").read_text())
    assert statistics["observation.state"]["max"] == [23.0, 11.5]
    assert statistics["observation.state"]["count"] == [20]
    assert np.shape(statistics[KEY]["mean"]) == (3, 1, 1)
    assert 0 < statistics[KEY]["mean"][1][0][0] < 1
    assert episodes(folder)[0]["stats/action/min"] == [3.0, 2.0]


def test_encoded_images_and_a_recording_without_commands(tmp_path: Path) -> None:
    encoder: Any = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 32, 16, "yuvj420p"
    encoder.time_base = 1
    image: Any = av.VideoFrame.from_ndarray(np.full((16, 32, 3), 90, np.uint8), format="rgb24")
    packets = list(encoder.encode(image.reformat(format="yuvj420p")))
    packets += encoder.encode(None)
    jpeg = np.frombuffer(bytes(packets[0]), np.uint8)
    metadata = {"width": 32, "height": 16, "encoding": "jpeg", "primitive": "image"}

    def messages() -> Iterator[RecordedMessage]:
        for number in range(4):
            yield message("camera/image", jpeg, metadata, at=number * PERIOD)

    (done,) = export_lerobot(messages, None, LeRobotOptions(), tmp_path / "dataset").values()
    assert (done.episodes, done.frames, done.repeated, done.skipped) == (1, 4, 0, 0)


def test_av1_as_lerobot_writes_it(tmp_path: Path) -> None:
    """The times of packets are those of LeRobot, which copies them into one file."""

    def messages() -> Iterator[RecordedMessage]:
        for number in range(4):
            pixels = np.full((64, 64, 3), 90, np.uint8).ravel()
            size = {**SIZE, "width": 64, "height": 64}
            yield message("camera/image", pixels, size, at=number * PERIOD)

    folder = tmp_path / "dataset"
    policies = set[int]()

    def messages_and_threads() -> Iterator[RecordedMessage]:
        for one in messages():
            policies.update(
                os.sched_getscheduler(int(task)) for task in os.listdir("/proc/self/task")
            )
            yield one

    export_lerobot(messages_and_threads, None, LeRobotOptions(codec="av1"), folder)
    assert policies == {os.SCHED_OTHER}, "the encoder's threads have real-time priority"
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    info = json.loads((folder / "meta/info.json").read_text())["features"][KEY]["info"]
    assert (info["video.codec"], info["is_depth_map"]) == ("av1", False)
    with av.open(str(folder / f"videos/{KEY}/chunk-000/file-000.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.base_rate, stream.time_base) == (FPS, Fraction(1, 10240))
        assert [one.time for one in container.decode()] == [0.0, 0.1, 0.2, 0.3]


def test_one_output_is_state_and_action(tmp_path: Path) -> None:
    options = LeRobotOptions(state="arm/joints", action="arm/joints")
    table = rows(dataset(tmp_path / "dataset", options))
    assert table["action"][:11] == table["observation.state"][1:12]  # what came next
    info = json.loads((tmp_path / "dataset/meta/info.json").read_text())
    assert info["features"]["action"] == info["features"]["observation.state"]


def with_sources(frames: int = 24) -> Iterator[RecordedMessage]:
    """A human drives from frame 6 to 9, and a policy the other ones."""
    for one in recorded(frames):
        number = (one.log_time - 10**9 + 20_000_000) // PERIOD
        if one.topic == "leader/joints":
            source = "human" if 6 <= number < 10 else "policy"
            metadata = {"names": ["pan", "lift"], "source": source}
            yield message(one.topic, pa.array([float(number)] * 2), metadata, at=one.log_time)
        else:
            yield one


def test_a_dataset_for_each_source(tmp_path: Path) -> None:
    options = replace(OPTIONS, images={"camera/image": "front"}, split_by="source")
    done = export_lerobot(with_sources, None, options, tmp_path / "all")
    assert {path.name: (one.episodes, one.frames) for path, one in done.items()} == {
        "human": (1, 3),
        "policy": (3, 15),
    }
    assert rows(tmp_path / "all/human")["action"] == [[float(one)] * 2 for one in (7, 8, 9)]
    info = json.loads((tmp_path / "all/policy/meta/info.json").read_text())
    assert "observation.images.front" in info["features"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (OPTIONS, "no message of leader/joints has `source` in its metadata"),
        (LeRobotOptions(), "no action has `source` in its metadata; name the actions with --actio"),
    ],
)
def test_actions_without_a_source(tmp_path: Path, options: LeRobotOptions, problem: str) -> None:
    with pytest.raises(CannotConvert, match=problem):
        export_lerobot(recorded, None, replace(options, split_by="source"), tmp_path / "all")
    assert list(tmp_path.iterdir()) == []


def test_two_cameras_of_one_name_are_refused(tmp_path: Path) -> None:
    pixels = np.zeros(16 * 32 * 3, np.uint8)

    def messages() -> Iterator[RecordedMessage]:
        for number, topic in enumerate(("a/b_c", "a_b/c")):
            yield message(topic, pixels, SIZE, at=number * PERIOD)

    with pytest.raises(CannotConvert, match=r"a/b_c and a_b/c would both be observation\.images"):
        export_lerobot(messages, None, LeRobotOptions(), tmp_path / "dataset")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (LeRobotOptions(state="arm/none"), 'the recording has no messages of "arm/none"'),
        (LeRobotOptions(images={}, episodes="arm/joints"), "the recording has no images"),
        (LeRobotOptions(episodes="arm/joints"), "arm/joints begins no episode"),
        (LeRobotOptions(state="keys/command"), "output keys/command: Text is not a list of"),
    ],
)
def test_what_a_dataset_needs(tmp_path: Path, options: LeRobotOptions, problem: str) -> None:
    with pytest.raises(CannotConvert, match=problem):
        dataset(tmp_path / "dataset", options)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_changes_its_shape_is_named(tmp_path: Path) -> None:
    def messages() -> Iterator[RecordedMessage]:
        for number in range(1, 4):
            yield message("arm/joints", pa.array([1.0] * number), at=number * PERIOD)

    with pytest.raises(CannotConvert, match=r"arm/joints changed its shape from \(1,\) to \(2,\)"):
        export_lerobot(messages, None, LeRobotOptions(state="arm/joints"), tmp_path / "dataset")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(pq.ParquetWriter, "write_table", full)
        patched.setattr(pq.ParquetWriter, "close", full)
        with pytest.raises(OSError, match="No space left"):
            dataset(tmp_path / "dataset")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(CannotConvert, match=r"needs av; .* pip install '?av>=14"):
        dataset(tmp_path / "dataset")
