"""Exports recordings as LeRobot v3 datasets: Parquet for numbers, MP4 for cameras.

https://huggingface.co/docs/lerobot/lerobot-dataset-v3
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from dora_config.dataflow.sources import TimerSource, parse_source
from dora_node_api.data.visual_kinds import VisualKind
from dora_node_api.data.visual_values import (
    EncodedImage,
    Image,
    Joints,
    Numbers,
    Pose,
    read_visual,
)
from dora_recordings.arrow_messages import RecordedMessage
from dora_recordings.conversion import CannotConvert, unfinished
from dora_recordings.export.dataset_writer import (
    MAX_EPISODE_SECONDS,
    DatasetWriter,
    Feature,
)
from dora_recordings.export.episodes import (
    CommandMessage,
    EpisodeSpan,
    FrameGrid,
    frame_rate,
    spans,
    stretches,
)
from dora_recordings.export.video import ImageDecoder, require_video
from dora_recordings.export.visuals import DecodedMessage, VisualDecoder

IMAGES = (VisualKind.IMAGE, VisualKind.ENCODED_IMAGE)
ACTION = "action"
"""Feature of the dataset."""


@dataclass(frozen=True, slots=True)
class LeRobotOptions:
    """Outputs are named ``node/output``."""

    images: Mapping[str, str] | None = None
    """Camera names by output; None: each output with images is a camera with its name."""
    state: str | None = None
    action: str | None = None
    episodes: str | None = None
    """Output with commands that begin and end episodes; None: the recording is one episode."""
    every: str | None = None
    """Output whose messages become frames; by default the first camera, else the state."""
    fps: int | None = None
    """Frames per second; None: as measured."""
    task: str = "recorded with dora"
    robot: str | None = None
    split_by: str | None = None
    """Metadata key of the actions; each of its values gets a dataset."""
    codec: str = "h264"


@dataclass(frozen=True, slots=True)
class ExportedDataset:
    episodes: int
    frames: int
    repeated: int
    """Frames without a message at their time, which repeat the previous frame."""
    skipped: int
    """Messages whose frame time was already used."""
    notes: tuple[str, ...]


def export_lerobot(
    messages: Callable[[], Iterator[RecordedMessage]],
    dataflow: Mapping[str, Any] | None,
    options: LeRobotOptions,
    folder: Path,
) -> dict[Path, ExportedDataset]:
    """Write a dataset to ``folder``, which must not exist, or with `split_by` several into it.

    ``messages`` is called once more than there are datasets. Raises CannotConvert and OSError, and
    leaves no folder then.
    """
    require_video()
    with unfinished(folder, "folder") as path:
        survey = _Survey(VisualDecoder(dataflow), options, dataflow)
        for message in messages():
            survey.add(message)
        layout = survey.layout()
        parts = {".": layout.spans} if options.split_by is None else survey.parts(layout)
        done = {}
        for name, episodes in parts.items():
            part = replace(layout, spans=tuple(episodes))
            written = _write(messages(), VisualDecoder(dataflow), part, options, path / name)
            if written.frames:
                done[folder / name] = written
            elif options.split_by is not None:
                shutil.rmtree(path / name, ignore_errors=True)
        if not done:
            raise CannotConvert(
                f"no frame is complete: no message of {layout.driver} in an episode follows one"
                f" of each of {', '.join(layout.features)}"
            )
    return done


def _write(
    messages: Iterator[RecordedMessage],
    decoder: VisualDecoder,
    layout: _Layout,
    options: LeRobotOptions,
    folder: Path,
) -> ExportedDataset:
    """Write one dataset; it stays incomplete if it has no frames."""
    features = [feature for ones in layout.features.values() for feature in ones]
    features.sort(key=lambda one: one.name)
    writer = DatasetWriter(folder, features, layout.fps, options.robot, options.codec)
    frames = _Frames(decoder, layout, writer)
    try:
        for message in messages:
            frames.add(message)
        frames.end()
        if writer.frames:
            writer.close()
        else:
            writer.abandon()
    except BaseException:
        writer.abandon()
        raise
    notes = (*layout.notes, *_notes_on_length(writer.long_episodes))
    return ExportedDataset(writer.episodes, writer.frames, frames.repeated, frames.skipped, notes)


def _notes_on_length(long_episodes: list[int]) -> tuple[str, ...]:
    return tuple(
        f"episode {number} is longer than {MAX_EPISODE_SECONDS:g} s: LeRobot cannot find its later"
        " frames in the videos, because its timestamps are 32-bit floats; record shorter episodes"
        " (--episodes)"
        for number in long_episodes
    )


@dataclass(frozen=True, slots=True)
class _Layout:
    """Layout of the dataset, from a first pass over the recording."""

    features: dict[str, tuple[Feature, ...]]
    """Features by output; one may be both state and action."""
    driver: str
    fps: int
    spans: tuple[EpisodeSpan, ...]
    notes: tuple[str, ...]


class _Survey:
    """Finds the features, the frame rate and the episodes."""

    def __init__(
        self,
        decoder: VisualDecoder,
        options: LeRobotOptions,
        dataflow: Mapping[str, Any] | None,
    ) -> None:
        self._decoder = decoder
        self._options = options
        self._dataflow = dataflow
        self._features: dict[str, tuple[Feature, ...]] = {}
        self._others: set[str] = set()
        """Outputs that are not part of the dataset."""
        self._times: dict[str, list[int]] = {}
        self._commands: list[CommandMessage] = []
        self._values: list[tuple[int, str]] = []
        """Times of actions, and their values of `split_by`."""
        self._first: int | None = None
        self._last = 0

    def add(self, message: RecordedMessage) -> None:
        self._first = message.log_time if self._first is None else self._first
        self._last = message.log_time
        topic = message.topic
        if topic == self._options.episodes:
            self._commands.append(_command(_decoded(self._decoder, message)))
        if topic == self._options.action and (key := self._options.split_by) is not None:
            value = _decoded(self._decoder, message).metadata.get(key)
            if value is not None:
                self._values.append((message.log_time, str(value)))
        if topic in self._others:
            return
        if topic not in self._features:
            try:
                features = tuple(self._features_of(self._decoder.decode(message)))
            except ValueError as error:
                raise CannotConvert(f"output {topic}: {error}") from error
            if features:
                self._features[topic] = features
            elif topic != self._options.every:
                self._others.add(topic)
                return
        self._times.setdefault(topic, []).append(message.log_time)

    def _features_of(self, decoded: DecodedMessage) -> Iterator[Feature]:
        """Yield the features of an output by its first message. Raises ValueError."""
        topic, options = decoded.message.topic, self._options
        for name, chosen in (("observation.state", options.state), (ACTION, options.action)):
            if topic == chosen:
                yield _vector_feature(name, decoded)
        if options.images is not None:
            is_camera = topic in options.images
        else:
            is_camera = decoded.kind in IMAGES and topic not in (options.state, options.action)
        if is_camera:
            height, width, _ = ImageDecoder().rgb(_image(decoded)).shape
            name = (options.images or {}).get(topic) or topic.replace("/", "_")
            yield Feature(f"observation.images.{name}", (height, width, 3))

    def layout(self) -> _Layout:
        """Return the layout of the dataset. Raises CannotConvert."""
        options = self._options
        named = (options.state, options.action, options.every, *(options.images or ()))
        for topic in named:
            if topic is not None and topic not in self._times:
                raise CannotConvert(f'the recording has no messages of "{topic}"')
        if not self._features:
            raise CannotConvert(
                "the recording has no images; name the outputs with --state, --image"
            )
        pairs = [(one.name, topic) for topic, ones in self._features.items() for one in ones]
        for (name, topic), (other, second) in pairwise(sorted(pairs)):
            if name == other:
                raise CannotConvert(
                    f"{topic} and {second} would both be {name}; choose one with --image"
                )
        cameras = [topic for topic, ones in self._features.items() if ones[-1].is_image]
        driver = options.every or next(iter(sorted(cameras)), None) or next(iter(self._features))
        notes = []
        found = [EpisodeSpan(self._first or 0, self._last + 1, options.task)]
        if options.episodes is not None:
            found, unknown = spans(self._commands, self._last + 1, options.task)
            notes = [f'"{word}" is not a command for episodes' for word in dict.fromkeys(unknown)]
            if not found:
                raise CannotConvert(f"{options.episodes} begins no episode: it never sent `start`")
        times = [
            time
            for time in self._times[driver]
            if any(span.start <= time < span.end for span in found)
        ]
        fps = options.fps or frame_rate(times, _timers(self._dataflow, driver.partition("/")[0]))
        if fps is None:
            raise CannotConvert(f"{driver} has too few messages in episodes; give --fps")
        return _Layout(self._features, driver, fps, tuple(found), tuple(notes))

    def parts(self, layout: _Layout) -> dict[str, list[EpisodeSpan]]:
        """Return the episodes of each value of `split_by`. Raises CannotConvert."""
        action, key = self._options.action, self._options.split_by
        if not self._values:
            raise CannotConvert(
                f"no action has `{key}` in its metadata; name the actions with --action"
                if action is None
                else f"no message of {action} has `{key}` in its metadata"
            )
        found = stretches(layout.spans, self._values)
        for value in found:
            if not re.fullmatch(r"\w[\w.-]*", value):
                raise CannotConvert(
                    f'"{value}", a value of `{key}`, cannot be the name of a folder'
                )
        return found


class _Frames:
    """Builds a frame for each message of the driver.

    A frame has the last earlier message of each other output, but the first later action: the
    robot's response to this observation. If no action follows before the next frame, the last one
    is used.
    """

    def __init__(self, decoder: VisualDecoder, layout: _Layout, writer: DatasetWriter) -> None:
        self._decoder = decoder
        self._layout = layout
        self._writer = writer
        self._images = {topic: ImageDecoder() for topic in layout.features}
        self._latest: dict[str, DecodedMessage] = {}
        self._values: dict[str, tuple[DecodedMessage, Any]] = {}
        """Converted messages by feature, so that a message of several frames is converted once."""
        self._left = list(layout.spans)
        self._action = next(
            (
                (topic, feature)
                for topic, features in layout.features.items()
                for feature in features
                if feature.name == ACTION
            ),
            None,
        )
        self._pending: tuple[dict[str, Any], float] | None = None
        """The last frame and its time in seconds, until its action is received."""
        self._grid: FrameGrid | None = None
        self.repeated = 0
        self.skipped = 0

    def add(self, message: RecordedMessage) -> None:
        """Process the next message of the recording. Raises CannotConvert."""
        while self._left and message.log_time >= self._left[0].end:
            self.end()
            del self._left[0]
        topic = message.topic
        if topic in self._layout.features:
            self._latest[topic] = _decoded(self._decoder, message)
        if not self._left or message.log_time < self._left[0].start:
            return
        if self._action is not None and topic == self._action[0] != self._layout.driver:
            self._complete()
        if topic == self._layout.driver and self._has_observation():
            self._add_frame(message.log_time)

    def _has_observation(self) -> bool:
        """Whether all outputs have sent a message, except those with actions only."""
        return all(
            topic in self._latest or all(one.name == ACTION for one in features)
            for topic, features in self._layout.features.items()
        )

    @property
    def _has_action(self) -> bool:
        return self._action is None or self._action[0] in self._latest

    def _add_frame(self, time: int) -> None:
        if self._grid is None:
            self._grid = FrameGrid(self._layout.fps, time)
            self._writer.begin(self._left[0].task)
        elif not self._has_action:  # the pending frame, which has no action, is replaced
            self._grid, self._pending = FrameGrid(self._layout.fps, time), None
        placed = self._grid.place(time)
        if placed is None:
            self.skipped += 1
            return
        self._complete()
        self.repeated += len(placed) - 1
        for seconds in placed[:-1]:
            self._writer.repeat(seconds)
        self._pending = self._frame(), placed[-1]
        if self._action is None or self._action[0] == self._layout.driver:
            self._complete()

    def _complete(self) -> None:
        """Write the last frame, with the last action."""
        if self._pending is None or not self._has_action:
            return
        frame, seconds = self._pending
        self._pending = None
        if self._action is not None:
            frame[ACTION] = self._value(*self._action)
        self._writer.add(frame, seconds)

    def _frame(self) -> dict[str, Any]:
        return {
            feature.name: self._value(topic, feature)
            for topic, features in self._layout.features.items()
            for feature in features
            if feature.name != ACTION
        }

    def _value(self, topic: str, feature: Feature) -> Any:
        decoded = self._latest[topic]
        known = self._values.get(feature.name)
        if known is not None and known[0] is decoded:
            return known[1]
        try:
            if feature.is_image:
                value = self._images[topic].rgb(_image(decoded))
                shape = tuple(value.shape)
            else:
                value = _vector(decoded)[0]
                shape = (len(value),)
        except ValueError as error:
            raise CannotConvert(f"output {topic}: {error}") from error
        if shape != feature.shape:
            raise CannotConvert(f"output {topic} changed its shape from {feature.shape} to {shape}")
        self._values[feature.name] = decoded, value
        return value

    def end(self) -> None:
        """End the episode in progress.

        The frame before a hand-over is left out: its action comes from the other source.
        """
        if self._grid is not None:
            if not self._left[0].handed_over:
                self._complete()
            self._writer.end()
            self._grid = self._pending = None


def _timers(dataflow: Mapping[str, Any] | None, node: str) -> Iterator[int]:
    """Yield the intervals of the timers that a node reads."""
    for one in (dataflow or {}).get("nodes", ()):
        for program in (one, one.get("operator", {}), *one.get("operators", ())):
            for wanted in program.get("inputs", {}).values() if one["id"] == node else ():
                with suppress(ValueError, KeyError, TypeError):
                    source = parse_source(wanted if isinstance(wanted, str) else wanted["source"])
                    if isinstance(source, TimerSource):
                        yield source.interval_ns


def _decoded(decoder: VisualDecoder, message: RecordedMessage) -> DecodedMessage:
    """Decode a message. Raises CannotConvert."""
    try:
        return decoder.decode(message)
    except ValueError as error:
        raise CannotConvert(f"output {message.topic}: {error}") from error


def _command(decoded: DecodedMessage) -> CommandMessage:
    values = decoded.array.to_pylist()
    task = decoded.metadata.get("task")
    return CommandMessage(
        decoded.message.log_time,
        str(values[0]) if values else "",
        None if task is None else str(task),
    )


def _image(decoded: DecodedMessage) -> Image | EncodedImage:
    """Return the image of a message. Raises ValueError."""
    kind = decoded.kind if decoded.kind in IMAGES else VisualKind.IMAGE
    value = read_visual(kind, decoded.array, decoded.metadata, decoded.declared)
    assert isinstance(value, Image | EncodedImage)
    return value


def _vector_feature(name: str, decoded: DecodedMessage) -> Feature:
    values, names = _vector(decoded)
    return Feature(name, (len(values),), names)


def _vector(decoded: DecodedMessage) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Return the numbers of a state or an action, and their names. Raises ValueError."""
    kind = decoded.kind or VisualKind.NUMBERS
    match read_visual(kind, decoded.array, decoded.metadata, decoded.declared):
        case Joints(names=names, positions=positions):
            return positions, names
        case Numbers(values=values, names=names):
            return values, names or tuple(f"value_{index}" for index in range(len(values)))
        case Pose(position=position, orientation=orientation):
            return (*position, *orientation), ("x", "y", "z", "qx", "qy", "qz", "qw")
        case other:
            raise ValueError(f"{type(other).__name__} is not a list of numbers")
