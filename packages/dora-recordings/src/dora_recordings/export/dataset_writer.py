"""Files of a LeRobot v3 dataset (needs PyAV and numpy)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dora_recordings.export.parquet import abandon
from dora_recordings.export.video import VideoFile, pixel_format

VERSION = "v3.0"
CHUNK_FILES = 1000
"""Files in a folder."""
DATA_MB, VIDEO_MB = 100, 200
"""Sizes at which the next file begins, at an episode."""
FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA_PATH = f"data/{FILE}.parquet"
VIDEO_PATH = "videos/{video_key}/" + f"{FILE}.mp4"
EPISODES_PATH = f"meta/episodes/{FILE}.parquet"
MAX_EPISODE_SECONDS = 2048.0
"""Later timestamps, 32-bit floats as the format requires, are coarser than the 0.1 ms within which
LeRobot expects the frame of a video."""
IMAGE_STRIDE = 8
"""Statistics of images use each eighth pixel of each eighth row."""
INDEX_TYPES = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}


class FeatureStatistics:
    """Minimum, maximum, mean and deviation of each component."""

    def __init__(self) -> None:
        self._count = 0
        self._minimum: Any = None
        self._maximum: Any = None
        self._sum: Any = 0.0
        self._squares: Any = 0.0

    def add(self, values: Any) -> None:
        """Add an array of observations, each a row."""
        import numpy as np

        if not len(values):
            return
        rows = np.asarray(values, np.float64)
        added = FeatureStatistics()
        added._minimum, added._maximum = rows.min(axis=0), rows.max(axis=0)
        added._sum, added._squares = rows.sum(axis=0), (rows**2).sum(axis=0)
        added._count = len(rows)
        self.merge(added)

    def merge(self, other: FeatureStatistics) -> None:
        import numpy as np

        if not other._count:
            return
        first = self._minimum is None
        self._minimum = other._minimum if first else np.minimum(self._minimum, other._minimum)
        self._maximum = other._maximum if first else np.maximum(self._maximum, other._maximum)
        self._sum = self._sum + other._sum
        self._squares = self._squares + other._squares
        self._count += other._count

    def as_lists(self, *, image: bool) -> dict[str, Any]:
        """Return the statistics; ``image``: with the shape of channels x 1 x 1."""
        import numpy as np

        mean = self._sum / self._count
        deviation = np.sqrt(np.maximum(self._squares / self._count - mean**2, 0.0))
        found = {"min": self._minimum, "max": self._maximum, "mean": mean, "std": deviation}
        shaped = {
            name: (value.reshape(-1, 1, 1) if image else value).tolist()
            for name, value in found.items()
        }
        return {**shaped, "count": [self._count]}


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature of each frame; images have the shape height, width, channels."""

    name: str
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()

    @property
    def is_image(self) -> bool:
        return len(self.shape) == 3


@dataclass(slots=True)
class _Video:
    """Video files of one camera."""

    feature: Feature
    number: int = -1
    file: VideoFile | None = None
    path: Path = Path()
    begin: float = 0.0
    """Seconds in the file at which the episode begins."""
    end: float = 0.0


@dataclass(slots=True)
class _Episode:
    task: str
    times: list[float] = field(default_factory=list)
    vectors: dict[str, list[Any]] = field(default_factory=dict)
    statistics: dict[str, FeatureStatistics] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)
    """The last frame."""


class DatasetWriter:
    """Writes episodes one after another."""

    def __init__(
        self,
        folder: Path,
        features: list[Feature],
        fps: int,
        robot: str | None,
        codec: str = "h264",
    ) -> None:
        self.episodes = 0
        self.frames = 0
        self.long_episodes: list[int] = []
        """Episodes that are longer than MAX_EPISODE_SECONDS."""
        self._folder = folder
        self._features = features
        self._fps = fps
        self._robot = robot
        self._codec = codec
        self._videos = {one.name: _Video(one) for one in self._features if one.is_image}
        self._episode: _Episode | None = None
        self._data: pq.ParquetWriter | None = None
        self._data_number = -1
        self._data_bytes = 0
        self._rows: list[dict[str, Any]] = []
        self._tasks: dict[str, int] = {}
        self._statistics = {one.name: FeatureStatistics() for one in self._features}

    # -------------------------------------------------------------------- episodes

    def begin(self, task: str) -> None:
        """Begin an episode."""
        self._episode = _Episode(task)
        for video in self._videos.values():
            full = video.file is not None and video.path.stat().st_size >= VIDEO_MB << 20
            if full:
                self._close_video(video)
            if video.file is None:
                self._open_video(video)
            video.begin = video.end

    def add(self, values: dict[str, Any], seconds: float) -> None:
        """Add a frame; ``values``: RGB arrays and tuples of numbers by feature."""
        episode = self._episode
        assert episode is not None
        episode.times.append(seconds)
        episode.last = values
        for feature in self._features:
            value = values[feature.name]
            if feature.is_image:
                self._add_image(episode, feature.name, value, seconds)
            else:
                episode.vectors.setdefault(feature.name, []).append(value)

    def repeat(self, seconds: float) -> None:
        """Add the last frame again."""
        assert self._episode is not None
        self.add(self._episode.last, seconds)

    def _add_image(self, episode: _Episode, name: str, rgb: Any, seconds: float) -> None:
        video = self._videos[name]
        assert video.file is not None
        video.file.add(rgb, video.begin + seconds)
        pixels = rgb[::IMAGE_STRIDE, ::IMAGE_STRIDE].reshape(-1, 3) / 255.0
        episode.statistics.setdefault(name, FeatureStatistics()).add(pixels)

    def end(self) -> None:
        """Write the rows of the episode, if it has any."""
        episode, self._episode = self._episode, None
        assert episode is not None
        if not episode.times:
            return
        for video in self._videos.values():
            video.end = video.begin + len(episode.times) / self._fps
        for name, vectors in episode.vectors.items():
            statistics = episode.statistics.setdefault(name, FeatureStatistics())
            statistics.add(vectors)
        for name, statistics in episode.statistics.items():
            self._statistics[name].merge(statistics)
        task = self._tasks.setdefault(episode.task, len(self._tasks))
        table = self._table(episode, task)
        self._write_data(table)
        self._rows.append(self._row(episode))
        if episode.times[-1] > MAX_EPISODE_SECONDS:
            self.long_episodes.append(self.episodes)
        self.episodes += 1
        self.frames += len(episode.times)

    def _table(self, episode: _Episode, task: int) -> pa.Table:
        count = len(episode.times)
        first = self.frames
        columns: dict[str, pa.Array] = {}
        for name, vectors in episode.vectors.items():
            if len(vectors[0]) == 1:
                columns[name] = pa.array([one[0] for one in vectors], pa.float32())
            else:
                columns[name] = pa.array(vectors, pa.list_(pa.float32(), len(vectors[0])))
        columns |= {
            "timestamp": pa.array(episode.times, pa.float32()),
            "frame_index": pa.array(range(count), pa.int64()),
            "episode_index": pa.array([self.episodes] * count, pa.int64()),
            "index": pa.array(range(first, first + count), pa.int64()),
            "task_index": pa.array([task] * count, pa.int64()),
        }
        return pa.table(columns)

    def _write_data(self, table: pa.Table) -> None:
        if self._data is not None and self._data_bytes >= DATA_MB << 20:
            self._data.close()
            self._data = None
        if self._data is None:
            self._data_number += 1
            self._data_bytes = 0
            path = self._folder / DATA_PATH.format(**_indices(self._data_number))
            path.parent.mkdir(parents=True, exist_ok=True)
            self._data = pq.ParquetWriter(path, table.schema)
        self._data.write_table(table)
        self._data_bytes += table.nbytes

    def _row(self, episode: _Episode) -> dict[str, Any]:
        row: dict[str, Any] = {
            "episode_index": self.episodes,
            "tasks": [episode.task],
            "length": len(episode.times),
            "dataset_from_index": self.frames,
            "dataset_to_index": self.frames + len(episode.times),
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
        }
        for key, number in _indices(self._data_number).items():
            row[f"data/{key}"] = number
        for name, video in self._videos.items():
            for key, number in _indices(video.number).items():
                row[f"videos/{name}/{key}"] = number
            row[f"videos/{name}/from_timestamp"] = video.begin
            row[f"videos/{name}/to_timestamp"] = video.end
        for name, statistics in episode.statistics.items():
            for key, value in statistics.as_lists(image=name in self._videos).items():
                row[f"stats/{name}/{key}"] = value
        return row

    # ----------------------------------------------------------------------- videos

    def _open_video(self, video: _Video) -> None:
        video.number += 1
        relative = VIDEO_PATH.format(video_key=video.feature.name, **_indices(video.number))
        video.path = self._folder / relative
        height, width, _ = video.feature.shape
        video.file = VideoFile(video.path, width, height, self._codec, self._fps)
        video.end = 0.0

    def _close_video(self, video: _Video) -> None:
        if video.file is not None:
            video.file.close(video.end)
            video.file = None  # unless that failed: `abandon` closes it then

    # -------------------------------------------------------------------------- end

    def close(self) -> None:
        """Write the metadata and close all files."""
        for video in self._videos.values():
            self._close_video(video)
        if self._data is not None:
            self._data.close()
        episodes = self._folder / EPISODES_PATH.format(**_indices(0))
        episodes.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(self._rows), episodes)
        pq.write_table(_task_table(list(self._tasks)), self._folder / "meta/tasks.parquet")
        statistics = {
            name: one.as_lists(image=name in self._videos) for name, one in self._statistics.items()
        }
        (self._folder / "meta/stats.json").write_text(json.dumps(statistics, indent=4))
        (self._folder / "meta/info.json").write_text(json.dumps(self._info(), indent=4))

    def abandon(self) -> None:
        """Close all files without finishing them; errors of a full disk are ignored."""
        for video in self._videos.values():
            if video.file is not None:
                video.file.abandon()
        if self._data is not None:
            abandon(self._data)

    def _info(self) -> dict[str, Any]:
        return {
            "codebase_version": VERSION,
            "robot_type": self._robot,
            "total_episodes": self.episodes,
            "total_frames": self.frames,
            "total_tasks": len(self._tasks),
            "chunks_size": CHUNK_FILES,
            "data_files_size_in_mb": DATA_MB,
            "video_files_size_in_mb": VIDEO_MB,
            "fps": self._fps,
            "splits": {"train": f"0:{self.episodes}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self._videos else None,
            "features": {**self._own_features(), **_index_features()},
        }

    def _own_features(self) -> dict[str, Any]:
        return {
            one.name: self._video_feature(one)
            if one.is_image
            else {"dtype": "float32", "shape": list(one.shape), "names": list(one.names)}
            for one in self._features
        }

    def _video_feature(self, feature: Feature) -> dict[str, Any]:
        height, width, channels = feature.shape
        return {
            "dtype": "video",
            "shape": [height, width, channels],
            "names": ["height", "width", "channels"],
            "info": {
                "video.height": height,
                "video.width": width,
                "video.codec": self._codec,
                "video.pix_fmt": pixel_format(width, height, self._codec),
                "is_depth_map": False,
                "video.fps": self._fps,
                "video.channels": channels,
                "has_audio": False,
            },
        }


def _indices(number: int) -> dict[str, int]:
    return {"chunk_index": number // CHUNK_FILES, "file_index": number % CHUNK_FILES}


def _index_features() -> dict[str, Any]:
    return {
        name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in INDEX_TYPES.items()
    }


def _task_table(tasks: list[str]) -> pa.Table:
    """Return the tasks as pandas would write them, with the task as index."""
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": tasks})
    column = {"numpy_type": "int64", "pandas_type": "int64", "metadata": None}
    text = {"numpy_type": "object", "pandas_type": "unicode", "metadata": None}
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {"name": "task_index", "field_name": "task_index", **column},
            {"name": "task", "field_name": "task", **text},
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.0.0",
    }
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})
