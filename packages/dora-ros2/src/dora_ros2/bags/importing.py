"""Imports ROS 2 bags: MCAP and SQLite files become a recording, one output for each topic."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.parse import quote

import pyarrow as pa
import yaml
import zstandard

from dora_config.yaml.writer import dump_yaml
from dora_recordings.arrow_messages import COLUMN, RecordedMessage, encode
from dora_recordings.conversion import CannotConvert, Converted, unfinished
from dora_recordings.mcap_file import McapFile
from dora_recordings.reading import Recording, UnreadableRecording
from dora_ros2 import __version__
from dora_ros2.topics import DEFINITION_KEY, default_port
from dora_ros2.types import MessageType, Types

NODE = "ros2"
"""Node of the recording: the bridge that would send the topics of the bag."""
CDR = "cdr"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_SUFFIXES = (".mcap", ".db3", ".mcap.zstd", ".db3.zstd")
_NUMBER = re.compile(r"(\d+)")
_MAX_MESSAGE: Final = 1 << 30
"""Most bytes of a decompressed message."""
_LAST_TIME = (1 << 63) - 1
"""Latest time, in nanoseconds, that a signed integer holds."""


class Bag:
    """The messages of a bag, with the text of their definition as `schema`."""

    def __init__(self, path: Path) -> None:
        """Open a bag. Raises CannotConvert and OSError."""
        self.problems: list[str] = []
        """Missing or damaged parts, complete after a pass over the messages."""
        self.left_out: dict[tuple[str, str], tuple[int, str]] = {}
        """Messages that are not CDR by topic and type: how many, and why they were left out."""
        if not path.is_dir():
            self.files = [path]
            if not path.is_file():
                raise CannotConvert(f"{path} does not exist")
            return
        files = [one for one in path.iterdir() if one.name.endswith(_SUFFIXES)]
        plain = {one.name for one in files}
        files = [one for one in files if one.name.removesuffix(".zstd") not in plain - {one.name}]
        self.files = sorted(files, key=lambda one: _natural(one.name))
        known = {one.name.removesuffix(".zstd") for one in files}
        for name in _listed(path / "metadata.yaml"):
            if name.removesuffix(".zstd") not in known:
                self.problems.append(f"{path / name} is missing")
        if not files:
            raise CannotConvert(f"{path} has no files of a bag (.mcap, .db3)")

    def messages(self, scratch: Path) -> Iterator[RecordedMessage]:
        """Yield the intact messages; files are decompressed in ``scratch``. Raises OSError."""
        for path in self.files:
            with path.open("rb") as file:
                if file.read(4) == _ZSTD_MAGIC:
                    yield from self._of_compressed(path, scratch)
                else:
                    yield from self._of_file(path, path)

    def _of_compressed(self, path: Path, scratch: Path) -> Iterator[RecordedMessage]:
        unpacked = scratch / "unpacked"
        try:
            with path.open("rb") as packed, unpacked.open("wb") as file:
                zstandard.ZstdDecompressor().copy_stream(packed, file)
        except zstandard.ZstdError as error:
            self.problems.append(f"{path} is damaged: {error}")
        yield from self._of_file(unpacked, path)

    def _of_file(self, file: Path, path: Path) -> Iterator[RecordedMessage]:
        with file.open("rb") as opened:
            is_sqlite = opened.read(16) == b"SQLite format 3\0"
        return self._of_sqlite(file, path) if is_sqlite else self._of_mcap(file, path)

    def _of_mcap(self, file: Path, path: Path) -> Iterator[RecordedMessage]:
        try:
            recording = Recording(file, CDR)
        except UnreadableRecording:
            self.problems.append(f"{path} is neither an MCAP nor a SQLite file")
            return
        yield from recording.messages()
        self.problems += [f"{path} is damaged: {one}" for one in recording.damage]
        if not recording.finished and not recording.damage:
            self.problems.append(f"{path} has no end: it was cut off, and its last messages miss")
        for (topic, encoding), count in recording.others.items():
            self._leave_out(topic, "", count, encoding)

    def _of_sqlite(self, file: Path, path: Path) -> Iterator[RecordedMessage]:
        read = 0
        try:
            with closing(
                sqlite3.connect(f"file:{quote(str(file.absolute()))}?mode=ro", uri=True)
            ) as db:
                db.text_factory = partial(str, encoding="utf-8", errors="replace")
                tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master")}
                definitions: dict[str, str] = {}
                if "message_definitions" in tables:
                    columns = _texts("topic_type", "encoded_message_definition", "encoding")
                    query = f"SELECT {columns} FROM message_definitions"
                    for kind, text, encoding in db.execute(query):
                        # An empty definition is valid; a missing definition is not.
                        is_known = encoding in ("ros2msg", "ros2idl")
                        definitions[kind] = text or ("\n" if is_known else "")
                query = f"SELECT id, {_texts('name', 'type', 'serialization_format')} FROM topics"
                topics = {row[0]: row[1:] for row in db.execute(query)}
                query = (
                    "SELECT topic_id, CAST(IFNULL(timestamp, -1) AS INTEGER), data FROM messages"
                )
                for topic_id, time, data in db.execute(f"{query} ORDER BY id"):
                    read += 1
                    name, kind, encoding = topics.get(topic_id, (f"topic {topic_id}", "", ""))
                    if encoding != CDR or not isinstance(data, bytes):
                        self._leave_out(name, kind, 1, encoding or "unknown")
                        continue
                    text = definitions.get(kind, "").encode()
                    yield RecordedMessage(name, kind, text, time, time, 0, data)
        except (sqlite3.Error, UnicodeDecodeError) as error:  # or its text is damaged
            self.problems.append(
                f"{path} is damaged: {error}; the first {read} messages could be read"
            )

    def _leave_out(self, topic: str, kind: str, count: int, encoding: str) -> None:
        before = self.left_out.get((topic, kind), (0, ""))[0]
        self.left_out[topic, kind] = (before + count, f"its encoding is {encoding}, not {CDR}")


@dataclass(frozen=True, slots=True)
class _Decoder:
    type: MessageType
    schema: pa.Schema
    serialized: bytes


class BagImport:
    """One recording; call :meth:`run` once."""

    def __init__(self, bag: Path, target: Path, name: str, report: Callable[[int], None]) -> None:
        """``report`` gets the number of messages so far. Raises CannotConvert and OSError."""
        self.bag = Bag(bag)
        self.topics: dict[tuple[str, str], Converted] = {}
        """Outputs by topic and type."""
        self._name = name
        self._target = target
        self._report = report
        self._types = Types([str(Path.cwd())])
        self._decoders: dict[tuple[str, str, bytes], _Decoder | ValueError] = {}

    def run(self) -> None:
        """Write the recording. Raises CannotConvert and OSError, and leaves no file then."""
        facts = {"dataflow": self._name, "working_dir": str(Path.cwd()), "dora": __version__}
        with (
            unfinished(self._target) as new,
            TemporaryDirectory(prefix=f"{new.name}.", dir=new.parent) as scratch,
            McapFile(new, None, facts) as file,
        ):
            self._add_all(file, Path(scratch))
            file.add_dataflow(dump_yaml(self._dataflow()))
            file.finish({})
            if not any(one.messages for one in self.topics.values()):
                reasons = [*self.bag.problems, *(one.reason for one in self.topics.values())]
                raise CannotConvert(
                    f"no message could be read: {(reasons or ['there is none'])[0]}"
                )

    def _add_all(self, file: McapFile, scratch: Path) -> None:
        for number, message in enumerate(self.bag.messages(scratch), start=1):
            topic = self._topic(message.topic, message.type_name)
            try:
                imported = self._converted(message, topic)
            except (ValueError, zstandard.ZstdError) as error:
                topic.refuse(error)
            else:
                file.add(imported)
                topic.messages += 1
            self._report(number)
        for (name, kind), (count, reason) in self.bag.left_out.items():
            self._topic(name, kind).refuse(reason, count)

    def _topic(self, name: str, kind: str) -> Converted:
        if (name, kind) not in self.topics:
            wanted = output = re.sub(r"\W", "_", default_port(name), flags=re.ASCII) or "_"
            taken = {one.output for one in self.topics.values() if one.topic != name}
            number = 1
            while output in taken:
                output = f"{wanted}_{(number := number + 1)}"
            self.topics[name, kind] = Converted(kind, name, output)
        return self.topics[name, kind]

    def _converted(self, message: RecordedMessage, topic: Converted) -> RecordedMessage:
        """Return a message as the bridge would send it. Raises ValueError and ZstdError."""
        if not 0 <= message.log_time <= _LAST_TIME:
            raise ValueError(f"its time is {message.log_time}")
        key = message.topic, message.type_name, message.schema
        if key not in self._decoders:
            self._decoders[key] = self._decoder(message)
        decoder = self._decoders[key]
        if isinstance(decoder, ValueError):
            raise decoder
        data = message.data
        if data.startswith(_ZSTD_MAGIC):
            data = _unpacked(data)
        array = decoder.type.decode(data)
        return replace(
            message,
            topic=f"{NODE}/{topic.output}",
            type_name=decoder.type.name,
            schema=decoder.serialized,
            sequence=topic.messages + topic.refused + 1,
            data=encode(array, b"", decoder.schema, len(decoder.serialized)),
        )

    def _decoder(self, message: RecordedMessage) -> _Decoder | ValueError:
        try:
            text = message.schema.decode()
            kind = (
                self._types.message_of_schema(message.type_name, text)
                if text
                else self._types.message(message.type_name)
            )
            field = pa.field(COLUMN, kind.arrow_type)
        except ValueError as error:
            return error
        schema = pa.schema([field], metadata={DEFINITION_KEY: kind.ros2msg_text})
        return _Decoder(kind, schema, schema.serialize().to_pybytes())

    def _dataflow(self) -> dict[str, Any]:
        """Return a dataflow with a bridge that would send the same messages."""
        imported = {one.output: one for one in self.topics.values() if one.messages}
        topics = [
            {"topic": one.topic, "message_type": one.type, "output": output}
            for output, one in imported.items()
        ]
        return {"nodes": [{"id": NODE, "ros2": {"topics": topics}, "outputs": list(imported)}]}


def _texts(*columns: str) -> str:
    """Return columns for a query, cast to text, because damaged files may have other values."""
    return ", ".join(f"CAST(IFNULL({one}, '') AS TEXT)" for one in columns)


def _unpacked(data: bytes) -> bytes:
    """Return the decompressed bytes of a message. Raises ValueError and ZstdError."""
    size = zstandard.frame_content_size(data)
    if size > _MAX_MESSAGE:
        raise ValueError(f"it has {size} bytes when it is unpacked")
    return zstandard.ZstdDecompressor().decompress(data, _MAX_MESSAGE if size < 0 else 0)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in _NUMBER.split(name)]


def _listed(metadata: Path) -> list[str]:
    """Return the names of the files in the metadata of a bag; none if it is not readable."""
    try:
        found = yaml.safe_load(metadata.read_bytes())
        paths = found["rosbag2_bagfile_information"]["relative_file_paths"]
        return [Path(str(one)).name for one in paths]
    except (OSError, yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError):
        return []
