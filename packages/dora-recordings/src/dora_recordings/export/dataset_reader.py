"""Converts LeRobot v3 datasets to recordings: one node with an output for each feature.

Episodes follow each other with a second between them. The output `episode` sends `start`, with the
task, and `stop`. An export with `--episodes lerobot/episode --every lerobot/action` has the same
frames again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dora_config.yaml.writer import dump_yaml
from dora_node_api.data.metadata import encode_metadata
from dora_recordings._version import __version__
from dora_recordings.arrow_messages import MessageEncoder, RecordedMessage
from dora_recordings.conversion import CannotConvert, unfinished
from dora_recordings.export.video import require_video
from dora_recordings.mcap_file import McapFile

NODE, EPISODE = "lerobot", "episode"
INFO = Path("meta/info.json")
GAP_NS = 1_000_000_000
"""Nanoseconds between two episodes."""
_INDEX_FEATURES = ("timestamp", "frame_index", "episode_index", "index", "task_index")
"""Features that count or time frames."""


class Dataset:
    """A dataset in a folder, and its conversion to messages."""

    def __init__(self, folder: Path) -> None:
        """Open a dataset. Raises CannotConvert."""
        self._folder = folder
        try:
            self._info = json.loads((folder / INFO).read_text())
            self.fps = float(self._info["fps"])
            features: Mapping[str, Mapping[str, Any]] = self._info["features"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CannotConvert(f"{folder} is not a LeRobot dataset: {INFO}: {error}") from error
        version = str(self._info.get("codebase_version", ""))
        if not version.startswith("v3"):
            raise CannotConvert(
                f"{folder} is a dataset of the version {version or 'unknown'}; expected v3."
                " LeRobot converts older ones"
            )
        kept = {name: one for name, one in features.items() if name not in _INDEX_FEATURES}
        self.outputs = {
            name: re.sub(r"\W", "_", name.removeprefix("observation.").removeprefix("images."))
            for name, one in kept.items()
            if one["dtype"] not in ("string", "language")
        }
        """Names of outputs by feature."""
        pictures = ("image", "video")
        numbers_first = sorted(self.outputs, key=lambda name: kept[name]["dtype"] in pictures)
        self._features = {name: kept[name] for name in numbers_first}
        if any(one["dtype"] == "video" for one in self._features.values()):
            require_video()
        self.messages: dict[str, int] = {}
        """Number of messages by output."""
        self._videos: dict[str, _Video] = {}
        """The file in progress of each camera."""
        self._encoder = MessageEncoder()

    def dataflow(self) -> dict[str, Any]:
        """Return a dataflow with the node that a replay plays."""
        return {
            "nodes": [{"id": NODE, "path": "dynamic", "outputs": [EPISODE, *self.outputs.values()]}]
        }

    def messages_in_order(self) -> Iterator[RecordedMessage]:
        """Yield all messages. Raises CannotConvert for damaged or missing files."""
        began = round((self._folder / INFO).stat().st_mtime * 1e9)
        try:
            for episode in self._episodes():
                first = began
                rows = self._rows(episode)
                task = next(iter(episode.get("tasks") or ()), "")
                yield self._message(EPISODE, pa.array(["start"]), {"task": task}, first)
                for number, row in enumerate(rows):
                    yield from self._frame(episode, row, number, first)
                began = first + round(len(rows) / self.fps * 1e9)
                yield self._message(EPISODE, pa.array(["stop"]), {}, began)
                began += GAP_NS
        except (OSError, KeyError, ValueError, TypeError, pa.ArrowException) as error:
            raise CannotConvert(f"{self._folder}: {error}") from error

    def _episodes(self) -> Iterator[dict[str, Any]]:
        files = sorted((self._folder / "meta/episodes").glob("**/*.parquet"))
        if not files:
            raise ValueError("meta/episodes contains no file of episodes")
        for file in files:
            table = pq.read_table(file)
            kept = [name for name in table.column_names if not name.startswith("stats/")]
            yield from table.select(kept).to_pylist()

    def _rows(self, episode: Mapping[str, Any]) -> list[dict[str, Any]]:
        place = {key: episode[f"data/{key}"] for key in ("chunk_index", "file_index")}
        path = self._folder / self._info["data_path"].format(**place)
        number = ("episode_index", "==", episode["episode_index"])
        stored = [name for name, one in self._features.items() if one["dtype"] != "video"]
        rows: list[dict[str, Any]] = pq.read_table(
            path, columns=["episode_index", *stored], filters=[number]
        ).to_pylist()
        if len(rows) != episode["length"]:
            raise ValueError(f"{path} has {len(rows)} of {episode['length']} frames")
        return rows

    def _frame(
        self, episode: Mapping[str, Any], row: Mapping[str, Any], number: int, first: int
    ) -> Iterator[RecordedMessage]:
        at = first + round(number / self.fps * 1e9)
        actions = []
        for name, feature in self._features.items():
            output = self.outputs[name]
            match feature["dtype"]:
                case "video":
                    data, metadata = self._picture(episode, name, number)
                case "image":
                    stored = row[name]
                    height, width = feature["shape"][:2]
                    data = _bytes(stored["bytes"])
                    metadata = {"width": width, "height": height, "encoding": "png"}
                case _:
                    data, metadata = _numbers(row[name], feature)
            if name == "action":  # follows what was observed
                actions.append(self._message(output, data, metadata, at + 1000))
            else:
                yield self._message(output, data, metadata, at)
        yield from actions

    def _picture(
        self, episode: Mapping[str, Any], name: str, number: int
    ) -> tuple[pa.Array, dict[str, Any]]:
        place = {key: episode[f"videos/{name}/{key}"] for key in ("chunk_index", "file_index")}
        path = self._folder / self._info["video_path"].format(video_key=name, **place)
        video = self._videos.get(name)
        if video is None or video.path != path:
            if video is not None:
                video.close()
            video = self._videos[name] = _Video(path)
        begin = episode[f"videos/{name}/from_timestamp"]
        return video.jpeg(begin + (number - 0.5) / self.fps)

    def _message(
        self, output: str, array: pa.Array, metadata: Mapping[str, Any], at: int
    ) -> RecordedMessage:
        number = self.messages[output] = self.messages.get(output, 0) + 1
        topic, encoded = f"{NODE}/{output}", encode_metadata(metadata)
        return self._encoder.message(topic, array, encoded, (at, at), number)

    def close(self) -> None:
        for video in self._videos.values():
            video.close()


class _Video:
    """Reads the frames of one file in order."""

    def __init__(self, path: Path) -> None:
        import av

        self.path = path
        self._file = av.open(str(path))
        self._frames = self._file.decode(video=0)
        self._encoder: Any = None

    def jpeg(self, after: float) -> tuple[pa.Array, dict[str, Any]]:
        """Return the next frame that is later than some seconds, and its metadata."""
        for frame in self._frames:
            if frame.time > after:
                break
        else:
            raise ValueError(f"{self.path} ends before {after:.2f} s")
        metadata = {"width": frame.width, "height": frame.height, "encoding": "jpeg"}
        return _bytes(self._encoded(frame)), metadata

    def _encoded(self, frame: Any) -> bytes:
        import av

        if self._encoder is None:
            encoder: Any = av.CodecContext.create("mjpeg", "w")
            encoder.width, encoder.height = frame.width, frame.height
            encoder.pix_fmt, encoder.time_base = "yuvj420p", Fraction(1, 1000)
            encoder.options = {"qmin": "2", "qmax": "2"}  # the best quality
            self._encoder = encoder
        packets = self._encoder.encode(frame.reformat(format="yuvj420p"))
        return b"".join(bytes(packet) for packet in packets)

    def close(self) -> None:
        self._file.close()


def _bytes(data: bytes) -> pa.Array:
    return pa.Array.from_buffers(pa.uint8(), len(data), [None, pa.py_buffer(data)])


def _numbers(value: Any, feature: Mapping[str, Any]) -> tuple[pa.Array, dict[str, Any]]:
    """Return an array of numbers, and the metadata with their names."""
    values = value if isinstance(value, list) else [value]
    while values and isinstance(values[0], list):
        values = [one for ones in values for one in ones]
    names = feature.get("names")
    if isinstance(names, Mapping):  # names may be grouped: {"motors": [...]}
        names = next(iter(names.values()), None)
    is_named = isinstance(names, list) and len(names) == len(values)
    kind = pa.bool_() if feature["dtype"] == "bool" else getattr(pa, feature["dtype"])()
    return pa.array(values, kind), {"names": names} if is_named else {}


def import_dataset(folder: Path, target: Path) -> Dataset:
    """Write a recording. Raises CannotConvert and OSError."""
    dataset = Dataset(folder)
    facts = {"dataflow": folder.name, "working_dir": str(Path.cwd()), "dora": __version__}
    dataflow = dump_yaml(dataset.dataflow())
    with (
        unfinished(target) as new,
        closing(dataset),
        McapFile(new, dataflow, facts) as file,
    ):
        for message in dataset.messages_in_order():
            file.add(message)
        file.finish({})
    return dataset
