"""Exports recordings of ROS 2 topics to a bag: a folder with an MCAP file and `metadata.yaml`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from mcap.writer import CompressionType, Writer

from dora_config.yaml.writer import dump_yaml
from dora_node_api.data.metadata import decode_metadata
from dora_recordings.arrow_messages import RecordedMessage, decode
from dora_recordings.conversion import CannotConvert, Converted, unfinished
from dora_ros2 import __version__
from dora_ros2.topics import DEFINITION_KEY, TYPE_KEY, RosTopic, ros_topics
from dora_ros2.types import MessageType, Types

CHUNK_BYTES = 1 << 20
"""Bytes of messages that are compressed together."""
_VERSION = 5
"""Version of `metadata.yaml`, which Humble and all later versions read."""


@dataclass(slots=True)
class RosbagExport:
    """One bag; call :meth:`write` once."""

    target: Path
    dataflow: Mapping[str, Any] | None
    """Description as recorded."""
    working_dir: str
    """Working directory of the dataflow, which may have definitions of types."""
    topics: dict[tuple[str, str], Converted] = field(default_factory=dict)
    """Topics by output and type."""
    others: dict[str, None] = field(default_factory=dict)
    """Outputs that are not ROS topics."""

    def write(self, messages: Iterable[RecordedMessage]) -> None:
        """Write the bag. Raises CannotConvert and OSError, and leaves no folder then."""
        with unfinished(self.target, "folder") as folder:
            folder.mkdir(parents=True)
            self._write(messages, folder)

    def _write(self, messages: Iterable[RecordedMessage], folder: Path) -> None:
        name = f"{self.target.name}_0.mcap"
        known = ros_topics(self.dataflow)
        first, last = 0, 0
        with (folder / name).open("wb") as file:
            writer = Writer(file, CHUNK_BYTES, CompressionType.ZSTD)
            writer.start("ros2", f"dora {__version__}")
            channels = _Channels(writer, self.working_dir)
            for message in messages:
                topic = known.get(message.topic)
                if topic is None:
                    self.others[message.topic] = None
                elif self._add(channels, message, topic):
                    first = first or message.log_time
                    last = message.log_time
            writer.finish()
        if not self.topics:
            raise CannotConvert("the recording has no outputs of `ros2:` nodes")
        metadata = self._metadata(name, first, last - first)
        (folder / "metadata.yaml").write_text(dump_yaml(metadata))

    def _add(self, channels: _Channels, message: RecordedMessage, topic: RosTopic) -> bool:
        type_name = topic.type
        try:
            array, metadata = decode(message.schema, message.data)
            type_name = type_name or str(decode_metadata(metadata).get(TYPE_KEY, ""))
            channels.add(message, topic.name, type_name, array)
        except ValueError as error:
            self._counted(message.topic, topic.name, type_name).refuse(error)
            return False
        self._counted(message.topic, topic.name, type_name).messages += 1
        return True

    def _counted(self, output: str, topic: str, type_name: str) -> Converted:
        return self.topics.setdefault((output, type_name), Converted(type_name, topic))

    def _metadata(self, file: str, start: int, duration: int) -> dict[str, Any]:
        totals = Counter[tuple[str, str]]()  # several outputs may go to one topic
        for one in self.topics.values():
            totals[one.topic, one.type] += one.messages
        counts = [
            {
                "topic_metadata": {
                    "name": topic,
                    "type": type_name,
                    "serialization_format": "cdr",
                    "offered_qos_profiles": "",
                },
                "message_count": count,
            }
            for (topic, type_name), count in totals.items()
            if count
        ]
        times = {
            "starting_time": {"nanoseconds_since_epoch": start},
            "duration": {"nanoseconds": duration},
            "message_count": totals.total(),
        }
        information = {
            "version": _VERSION,
            "storage_identifier": "mcap",
            **times,
            "topics_with_message_count": counts,
            "compression_format": "",
            "compression_mode": "",
            "relative_file_paths": [file],
            "files": [{"path": file, **times}],
        }
        return {"rosbag2_bagfile_information": information}


class _Channels:
    """Channels and types of the file."""

    def __init__(self, writer: Writer, working_dir: str) -> None:
        self._writer = writer
        self._installed = Types([working_dir] if working_dir else [])
        self._types: dict[tuple[bytes, str], MessageType] = {}
        self._channels: dict[tuple[str, str], int] = {}
        self._schemas: dict[str, int] = {}

    def add(self, message: RecordedMessage, topic: str, type_name: str, array: pa.Array) -> None:
        """Write a message. Raises ValueError if it does not fit its type."""
        if not type_name:
            raise ValueError("its type is unknown; add `message_type` to the `ros2:` node")
        key = message.schema, type_name
        if key not in self._types:
            self._types[key] = self._type(message.schema, type_name)
        data = bytes(self._types[key].encode(array))
        channel = self._channels.get((topic, type_name))
        if channel is None:
            channel = self._channel(topic, self._types[key])
            self._channels[topic, type_name] = channel
        self._writer.add_message(
            channel, message.log_time, data, message.publish_time, message.sequence
        )

    def _type(self, schema: bytes, name: str) -> MessageType:
        metadata = pa.ipc.read_schema(pa.py_buffer(schema)).metadata or {}
        text = metadata.get(DEFINITION_KEY, b"").decode()
        if text.strip():
            return self._installed.message_of_schema(name, text)
        return self._installed.message(name)

    def _channel(self, topic: str, kind: MessageType) -> int:
        if kind.name not in self._schemas:
            text = kind.ros2msg_text.encode()
            self._schemas[kind.name] = self._writer.register_schema(kind.name, "ros2msg", text)
        metadata = {"offered_qos_profiles": "", "topic_type_hash": kind.hash}
        return self._writer.register_channel(topic, "cdr", self._schemas[kind.name], metadata)
