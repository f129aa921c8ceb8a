"""Reads recordings, also those whose recorder was killed."""

from __future__ import annotations

import heapq
import io
import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from mcap.exceptions import McapError
from mcap.reader import make_reader
from mcap.records import Attachment, Channel, McapRecord, Message, Metadata, Schema
from mcap.stream_reader import StreamReader

from dora_config.errors import DoraError
from dora_daemon.recording.arrow_messages import ENCODING
from dora_daemon.recording.mcap_file import CLOCK, DATAFLOW_ATTACHMENT, LOST, SOURCE
from dora_daemon.recording.message import RecordedMessage

MAGIC = b"\x89MCAP0\r\n"
_TRUNCATED = (McapError, EOFError, ValueError, struct.error)
_SHORTEST = 64
"""Bytes; a finished file is longer."""
_WINDOW = 4096
"""Messages of an unfinished file that are sorted by time at once."""


class UnreadableRecording(DoraError):
    """The file is not a recording."""


@dataclass(frozen=True, slots=True)
class RecordingFacts:
    """What a file holds beside its messages."""

    source: dict[str, str] = field(default_factory=dict)
    clocks: tuple[dict[str, str], ...] = ()
    lost: dict[str, int] = field(default_factory=dict)
    dataflow: str | None = None
    """YAML of the recorded dataflow."""


class Recording:
    """One file, opened again for each pass over it."""

    def __init__(self, path: Path) -> None:
        """Raises UnreadableRecording and OSError."""
        self.path = path
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise UnreadableRecording(f"{path} is not an MCAP file")
        self.finished = self._has_summary()
        """False: the recorder was killed, or still records."""

    def _has_summary(self) -> bool:
        with self.path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            if size < _SHORTEST:
                return False
            file.seek(0)
            try:
                return make_reader(file).get_summary() is not None
            except _TRUNCATED:
                return False

    def facts(self) -> RecordingFacts:
        metadata: list[Metadata] = []
        attachments: list[Attachment] = []
        with self.path.open("rb") as file:
            if self.finished:
                reader = make_reader(file)
                metadata.extend(reader.iter_metadata())
                attachments.extend(reader.iter_attachments())
            else:
                for record in _records(StreamReader(file, emit_chunks=True)):
                    if isinstance(record, Metadata):
                        metadata.append(record)
                    elif isinstance(record, Attachment):
                        attachments.append(record)
        named = {record.name: record.metadata for record in metadata}
        texts = {one.name: one.data for one in attachments}
        text = texts.get(DATAFLOW_ATTACHMENT)
        lost: dict[str, int] = json.loads(named.get(LOST, {}).get("messages", "{}"))
        return RecordingFacts(
            source=named.get(SOURCE, {}),
            clocks=tuple(record.metadata for record in metadata if record.name == CLOCK),
            lost=lost,
            dataflow=None if text is None else text.decode(),
        )

    def messages(
        self,
        topics: Iterable[str] | None = None,
        start: int | None = None,
        end: int | None = None,
    ) -> Iterator[RecordedMessage]:
        """Yield messages in the order they were sent.

        ``start`` and ``end`` (exclusive) are log times. Messages of other encodings are skipped.
        """
        wanted = None if topics is None else list(topics)
        with self.path.open("rb") as file:
            if not self.finished:
                found = _sorted(_streamed(StreamReader(file)))
            else:
                found = (
                    _message(schema, channel, message)
                    for schema, channel, message in make_reader(file).iter_messages(
                        topics=wanted, starting_at=start, ending_before=end
                    )
                    if schema is not None and schema.encoding == ENCODING
                )
            for message in found:
                if (
                    (wanted is None or message.topic in wanted)
                    and (start is None or message.log_time >= start)
                    and (end is None or message.log_time < end)
                ):
                    yield message


def merged(
    recordings: Iterable[Recording],
    topics: Iterable[str] | None = None,
    start: int | None = None,
    end: int | None = None,
) -> Iterator[RecordedMessage]:
    """Yield the messages of several files in the order they were sent."""
    chosen = None if topics is None else list(topics)
    parts = [recording.messages(chosen, start, end) for recording in recordings]
    return heapq.merge(*parts, key=lambda message: message.log_time)


def _records(reader: StreamReader) -> Iterator[McapRecord]:
    """Yield records up to the end of the file or the first incomplete one."""
    records = iter(reader.records)
    while True:
        try:
            record = next(records)
        except StopIteration:
            return
        except _TRUNCATED:
            return
        yield record


def _streamed(reader: StreamReader) -> Iterator[RecordedMessage]:
    schemas: dict[int, Schema] = {}
    channels: dict[int, Channel] = {}
    for record in _records(reader):
        if isinstance(record, Schema):
            schemas[record.id] = record
        elif isinstance(record, Channel):
            channels[record.id] = record
        elif isinstance(record, Message):
            channel = channels[record.channel_id]
            schema = schemas.get(channel.schema_id)
            if schema is not None and schema.encoding == ENCODING:
                yield _message(schema, channel, record)


def _sorted(messages: Iterator[RecordedMessage]) -> Iterator[RecordedMessage]:
    numbers = count()
    window: list[tuple[int, int, RecordedMessage]] = []
    for message in messages:
        heapq.heappush(window, (message.log_time, next(numbers), message))
        if len(window) > _WINDOW:
            yield heapq.heappop(window)[2]
    while window:
        yield heapq.heappop(window)[2]


def _message(schema: Schema, channel: Channel, message: Message) -> RecordedMessage:
    return RecordedMessage(
        topic=channel.topic,
        type_name=schema.name,
        schema=schema.data,
        log_time=message.log_time,
        publish_time=message.publish_time,
        sequence=message.sequence,
        data=message.data,
    )
