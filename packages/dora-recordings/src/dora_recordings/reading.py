"""Reads finished, truncated and damaged recordings; each part is checked before it is used."""

from __future__ import annotations

import heapq
import io
import re
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import accumulate, count
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import yaml
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Attachment, Channel, Chunk, Header, McapRecord, Message, Metadata, Schema
from mcap.stream_reader import StreamReader, breakup_chunk
from mcap.writer import MCAP0_MAGIC as MAGIC
from pydantic import TypeAdapter
from zstandard import ZstdDecompressor, ZstdError

from dora_config.errors import DoraError
from dora_recordings.arrow_messages import ENCODING, RecordedMessage
from dora_recordings.mcap_file import CLOCK, DATAFLOW, LOST, SOURCE
from dora_recordings.message_checks import (
    OPCODE as CHECKS,
    message_check,
    read_checks,
    type_check,
)

WINDOW_BYTES: Final = 256 << 20
"""Size of messages that wait for earlier ones; more than a recorder holds in memory."""
MAX_SMALL: Final = 64 << 20
"""Bytes of a record other than a chunk."""
_INVALID = (
    *(McapError, ZstdError, struct.error, ValueError, KeyError),
    *(EOFError, OverflowError, MemoryError, RuntimeError),
)
"""Exceptions of the libraries for invalid bytes."""
_HEAD = struct.Struct("<BQ")
_CHUNK_HEAD = struct.Struct("<QQQII")
"""Start and end time, size and CRC of the content, length of the name of the compression."""
_MESSAGE_HEAD = struct.Struct("<HIQ")
"""Channel, sequence and log time."""
_COMPRESSIONS = (b"", b"zstd", b"lz4")
_INDEX_HEAD = struct.Struct("<HI")
_INDEX_ENTRY: Final = 16
"""Bytes of one message in an index: its time and its place."""
_FOOTER = struct.Struct("<BQQQI")
_RECOGNIZED = re.compile(rb"[\x06\x07\x09\x0f\x80].{5}\x00\x00\x00", re.DOTALL)
"""Begin of a chunk, index, attachment, checksums or the end of the data, after damage."""
_BLOCK: Final = 1 << 20
"""Bytes that are searched at a time for a record after damage."""
_PIECE: Final = 1 << 10
"""Bytes that are decompressed per call; damage loses all bytes of its call."""
_TEXTS: Final = TypeAdapter(dict[str, str])
_COUNTS: Final = TypeAdapter(dict[str, int])


class UnreadableRecording(DoraError):
    """The file is not a recording."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that cannot be read."""

    begin: int
    end: int
    messages: int | None = None
    """None: unknown."""
    at_least: bool = False
    """Chunks were destroyed with their indexes: more messages may be lost."""

    def __str__(self) -> str:
        lost = "an unknown number of" if self.messages is None else str(self.messages)
        lost = f"at least {lost}" if self.at_least else lost
        plural = "" if self.messages == 1 else "s"
        return f"bytes {self.begin} to {self.end}, {lost} message{plural}"


@dataclass(slots=True)
class RecordingFacts:
    """Content of a file beside its messages."""

    source: dict[str, str] = field(default_factory=dict)
    clocks: list[dict[str, str]] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)
    dataflow: dict[str, Any] | None = None
    """The recorded dataflow."""


class _Record(NamedTuple):
    opcode: int
    begin: int
    end: int
    content: bytes
    """Empty for a chunk."""
    start_time: int = 0
    end_time: int = 0


class Recording:
    """One file, opened again for each pass over its messages."""

    def __init__(self, path: Path, encoding: str = ENCODING) -> None:
        """Read messages of this encoding. Raises UnreadableRecording and OSError.

        Files of another encoding come from other programs: they may have messages outside of
        chunks, and no summary.
        """
        self.path = path
        self._encoding = encoding
        self.others: Counter[tuple[str, str]] = Counter()
        """Messages of other encodings in the last pass, by topic and encoding."""
        self.facts = RecordingFacts()
        self.finished = False
        """False: the recorder was killed or still records, or the file is truncated."""
        self._damage: dict[int, Damage] = {}
        self._chunks: list[_Record] = []
        self._counts: dict[int, int] = {}
        """Messages by the start of a chunk or of damage, from the indexes after it."""
        self._checks: dict[int, list[int]] = {}
        """Checksums of messages by the start of their chunk."""
        self._summary: list[Schema | Channel] = []
        """Empty: unfinished or damaged."""
        with path.open("rb") as file:
            self._open(file, file.seek(0, io.SEEK_END))

    @property
    def damage(self) -> list[Damage]:
        """Damage found so far; complete after a pass over all messages."""
        found = sorted(self._damage.values(), key=lambda one: one.begin)
        return [self._counted(one) if one.messages is None else one for one in found]

    def _counted(self, damage: Damage) -> Damage:
        """Return damage with the number of messages according to the indexes after it."""
        messages = self._counts.get(damage.begin)
        whole_chunk = any(chunk.begin == damage.begin for chunk in self._chunks)
        return replace(damage, messages=messages, at_least=messages is not None and not whole_chunk)

    # ------------------------------------------------------------------------------ parts

    def _open(self, file: BinaryIO, size: int) -> None:
        begin, end = _read(file, 0, len(MAGIC)), _read(file, size - len(MAGIC), len(MAGIC))
        self.finished = size > len(MAGIC) and end == MAGIC
        if begin != MAGIC and not MAGIC.startswith(begin):
            header = _record(file, len(MAGIC), size)
            if not self.finished and (header is None or header.opcode != Opcode.HEADER):
                raise UnreadableRecording(f"{self.path} is not an MCAP file")
            self._add_damage(0, len(MAGIC), 0)
        data_end = self._walk(file, len(MAGIC), size)
        if self.finished:
            try:
                self._summary = _summary(file, size)
            except _INVALID:
                self._add_damage(data_end, size, 0)

    def _walk(self, file: BinaryIO, at: int, size: int) -> int:
        """Find the parts of the file; return where the data ends."""
        counted = at
        while at < size:
            record = _record(file, at, size) or self._unchunked(file, at, size)
            if record is None:
                record = _next_record(file, at + 1, size)
                if record is None and not self.finished:
                    return size  # the file is truncated
                self._add_damage(at, size if record is None else record.begin)
                if record is None:
                    return size
                if not self._is_of_last_chunk(record):
                    counted = at
            at = record.end
            match record.opcode:
                case Opcode.DATA_END:
                    return at
                case Opcode.CHUNK | Opcode.SCHEMA | Opcode.CHANNEL | Opcode.MESSAGE:
                    self._chunks.append(record)
                    counted = record.begin
                case Opcode.MESSAGE_INDEX:
                    messages = len(record.content) // _INDEX_ENTRY
                    self._counts[counted] = self._counts.get(counted, 0) + messages
                case Opcode.ATTACHMENT:
                    self._note(record)
                case _ if record.opcode == CHECKS:
                    self._note_checks(record)
                case _:
                    pass
        return at

    def _unchunked(self, file: BinaryIO, begin: int, size: int) -> _Record | None:
        """Return a record outside of chunks in the form of a chunk."""
        head = _read(file, begin, _HEAD.size + _MESSAGE_HEAD.size)
        if self._encoding == ENCODING or len(head) < _HEAD.size + _MESSAGE_HEAD.size:
            return None
        opcode, length = _HEAD.unpack_from(head)
        end = begin + _HEAD.size + length
        if opcode not in (Opcode.SCHEMA, Opcode.CHANNEL, Opcode.MESSAGE) or end > size:
            return None
        time = _MESSAGE_HEAD.unpack_from(head, _HEAD.size)[2] if opcode == Opcode.MESSAGE else 0
        return _Record(opcode, begin, end, b"", time, time)

    def _is_of_last_chunk(self, record: _Record) -> bool:
        """Return whether a record is an index of the chunk before the damage."""
        if record.opcode not in (Opcode.MESSAGE_INDEX, CHECKS) or not self._chunks:
            return False
        chunk = self._chunks[-1]
        if record.opcode == CHECKS:
            return record.content[:8] == chunk.begin.to_bytes(8, "little")
        first = int.from_bytes(record.content[_INDEX_HEAD.size :][:8], "little")
        return chunk.start_time <= first <= chunk.end_time

    def _note(self, record: _Record) -> None:
        """Keep a fact about the recording."""
        facts = self.facts
        try:
            attached = Attachment.read(ReadDataStream(io.BytesIO(record.content)))
            if attached.name == SOURCE:
                facts.source = _TEXTS.validate_json(attached.data)
            elif attached.name == CLOCK:
                facts.clocks.append(_TEXTS.validate_json(attached.data))
            elif attached.name == LOST:
                facts.lost = _COUNTS.validate_json(attached.data)
            elif attached.name == DATAFLOW:
                dataflow = yaml.safe_load(attached.data)
                if all("id" in node for node in dataflow["nodes"]):
                    facts.dataflow = dataflow
        except (*_INVALID, yaml.YAMLError, TypeError):
            self._add_damage(record.begin, record.end, 0)

    def _note_checks(self, record: _Record) -> None:
        found = read_checks(record.content)
        assert found is not None, "checked by _makes_sense"
        self._checks[found[0]] = found[1]

    def _add_damage(self, begin: int, end: int, messages: int | None = None) -> None:
        self._damage[begin] = Damage(begin, end, messages)

    # --------------------------------------------------------------------------- messages

    def messages(
        self,
        topics: Iterable[str] | None = None,
        start: int | None = None,
        end: int | None = None,
    ) -> Iterator[RecordedMessage]:
        """Yield the intact messages in the order they were sent.

        ``start`` and ``end`` (exclusive) are log times. Messages of other encodings are skipped.
        """
        wanted = None if topics is None else set(topics)
        starts = [chunk.start_time for chunk in self._chunks[1:]] + [1 << 64]
        later = reversed(list(accumulate(reversed(starts), min)))
        numbers = count()
        window: list[tuple[int, int, RecordedMessage]] = []
        waiting = 0
        types = _Types(self._summary, self._encoding, self.others)
        self.others.clear()
        with self.path.open("rb") as file:
            for chunk, later_start in zip(self._chunks, later, strict=False):
                if self._summary and not _overlaps(chunk, start, end):
                    continue
                for message in self._of_chunk(file, chunk, types):
                    if (
                        (wanted is None or message.topic in wanted)
                        and (start is None or message.log_time >= start)
                        and (end is None or message.log_time < end)
                    ):
                        heapq.heappush(window, (message.log_time, next(numbers), message))
                        waiting += len(message.data)
                while window and (window[0][0] <= later_start or waiting > WINDOW_BYTES):
                    message = heapq.heappop(window)[2]
                    waiting -= len(message.data)
                    yield message
        while window:
            yield heapq.heappop(window)[2]

    def _of_chunk(self, file: BinaryIO, chunk: _Record, types: _Types) -> list[RecordedMessage]:
        try:
            records = _content(file, chunk)
        except _INVALID:
            return self._of_damaged_chunk(file, chunk, types)
        found: list[RecordedMessage] = []
        unknown = 0
        for record in records:
            if isinstance(record, Schema | Channel):
                types.add(record)
            elif isinstance(record, Message):
                try:
                    message = types.message(record)
                except KeyError:  # the chunk that names its type is damaged
                    unknown += 1
                else:
                    found.extend(() if message is None else (message,))
        if unknown:
            self._add_damage(chunk.begin, chunk.end, unknown)
        return found

    def _of_damaged_chunk(
        self, file: BinaryIO, chunk: _Record, types: _Types
    ) -> list[RecordedMessage]:
        """Return the messages before the damage, each of which has its checksum."""
        checks = self._checks.get(chunk.begin, [])
        found: list[RecordedMessage] = []
        # definitions of a damaged chunk may be damaged, so other chunks do not use them
        own = types.copy()
        numbers = iter(checks)
        for record in _before_damage(file, chunk) if checks else ():
            if isinstance(record, Schema | Channel):
                own.add(record)
            elif (check := next(numbers, None)) is None:
                break
            else:
                try:
                    message = own.message(record)
                except KeyError:
                    continue
                if message is not None and message_check(message, type_check(message)) == check:
                    found.append(message)
        self._add_damage(chunk.begin, chunk.end, len(checks) - len(found) if checks else None)
        return found


class _Types:
    """Schemas and channels so far."""

    def __init__(
        self,
        known: Iterable[Schema | Channel],
        encoding: str,
        others: Counter[tuple[str, str]],
    ) -> None:
        self._encoding = encoding
        self._others = others
        self._schemas: dict[int, Schema] = {}
        self._channels: dict[int, Channel] = {}
        for record in known:
            self.add(record)

    def copy(self) -> _Types:
        """Return an independent copy."""
        found = _Types((), self._encoding, Counter())
        found._schemas.update(self._schemas)
        found._channels.update(self._channels)
        return found

    def add(self, record: Schema | Channel) -> None:
        if isinstance(record, Schema):
            self._schemas[record.id] = record
        else:
            self._channels[record.id] = record

    def message(self, record: Message) -> RecordedMessage | None:
        """Return the message, None if its encoding is another; raises KeyError."""
        channel = self._channels[record.channel_id]
        if channel.message_encoding != self._encoding:
            self._others[channel.topic, channel.message_encoding] += 1
            return None
        schema = self._schemas[channel.schema_id]
        return RecordedMessage(
            topic=channel.topic,
            type_name=schema.name,
            # An empty definition is valid; a missing schema is not.
            schema=schema.data or (b"\n" if schema.encoding else b""),
            log_time=record.log_time,
            publish_time=record.publish_time,
            sequence=record.sequence,
            data=record.data,
        )


def damage_of(recordings: Iterable[Recording]) -> list[str]:
    """Return the unreadable parts so far, each with its file."""
    return [f"{one.path} is damaged: {damage}" for one in recordings for damage in one.damage]


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


def _overlaps(chunk: _Record, start: int | None, end: int | None) -> bool:
    return (start is None or chunk.end_time >= start) and (end is None or chunk.start_time < end)


# ------------------------------------------------------------------------------------- bytes


def _read(file: BinaryIO, begin: int, length: int) -> bytes:
    file.seek(max(begin, 0))
    return file.read(length)


def _record(file: BinaryIO, begin: int, size: int) -> _Record | None:
    """Return the record at ``begin``; None if it is incomplete or invalid.

    The content of a chunk is checked when it is read.
    """
    head = _read(file, begin, _HEAD.size)
    if len(head) < _HEAD.size:
        return None
    opcode, length = _HEAD.unpack(head)
    end = begin + _HEAD.size + length
    if end > size:
        return None
    if opcode == Opcode.CHUNK:
        return _chunk(file, begin, end)
    if length > MAX_SMALL:
        return None
    content = file.read(length)
    return _Record(opcode, begin, end, content) if _makes_sense(opcode, content) else None


def _chunk(file: BinaryIO, begin: int, end: int) -> _Record | None:
    head = file.read(_CHUNK_HEAD.size)
    if len(head) < _CHUNK_HEAD.size:
        return None
    start_time, end_time, _, _, length = _CHUNK_HEAD.unpack(head)
    if length > max(map(len, _COMPRESSIONS)) or file.read(length) not in _COMPRESSIONS:
        return None
    stored = int.from_bytes(file.read(8), "little")
    if file.tell() + stored != end:
        return None
    return _Record(Opcode.CHUNK, begin, end, b"", start_time, end_time)


def _makes_sense(opcode: int, content: bytes) -> bool:
    match opcode:
        case Opcode.ATTACHMENT:
            return zlib.crc32(content[:-4]) == int.from_bytes(content[-4:], "little")
        case Opcode.MESSAGE_INDEX:
            if len(content) < _INDEX_HEAD.size:
                return False
            length: int = _INDEX_HEAD.unpack_from(content)[1]
            return length == len(content) - _INDEX_HEAD.size and length % _INDEX_ENTRY == 0
        case Opcode.DATA_END:
            return len(content) == 4
        case _ if opcode == CHECKS:
            return read_checks(content) is not None
        case Opcode.HEADER | Opcode.METADATA:
            stream = ReadDataStream(io.BytesIO(content))
            try:
                Header.read(stream) if opcode == Opcode.HEADER else Metadata.read(stream)
            except _INVALID:
                return False
            return bool(stream.count == len(content))
        case _:
            return False


def _next_record(file: BinaryIO, begin: int, size: int) -> _Record | None:
    """Return the first valid record after damage."""
    while begin < size:
        block = _read(file, begin, _BLOCK + _HEAD.size - 1)
        for match in _RECOGNIZED.finditer(block):
            if (found := _record(file, begin + match.start(), size)) is not None:
                return found
        begin += _BLOCK
    return None


def _content(file: BinaryIO, record: _Record) -> list[McapRecord]:
    """Return the records of a chunk; raises one of ``_INVALID``."""
    file.seek(record.begin + _HEAD.size)
    stream = ReadDataStream(file)
    match record.opcode:
        case Opcode.SCHEMA:
            return [Schema.read(stream)]
        case Opcode.CHANNEL:
            return [Channel.read(stream)]
        case Opcode.MESSAGE:
            return [Message.read(stream, record.end - record.begin - _HEAD.size)]
        case _:
            return _of_chunk(stream, record)


def _of_chunk(stream: ReadDataStream, record: _Record) -> list[McapRecord]:
    records = breakup_chunk(Chunk.read(stream), validate_crc=True)
    times = [one.log_time for one in records if isinstance(one, Message)]
    if times and (min(times), max(times)) != (record.start_time, record.end_time):
        raise ValueError("the times of the chunk do not fit its messages")
    return records


def _before_damage(file: BinaryIO, chunk: _Record) -> Iterator[Schema | Channel | Message]:
    """Yield the records at the beginning of a damaged chunk; their content may be wrong."""
    file.seek(chunk.begin + _HEAD.size)
    try:
        stored = Chunk.read(ReadDataStream(file))
        content = _decompressed(stored)
    except _INVALID:
        return
    stream = ReadDataStream(io.BytesIO(content))
    while True:
        try:
            opcode, length = _HEAD.unpack(stream.read(_HEAD.size))
            body = stream.read(length)
            own = ReadDataStream(io.BytesIO(body))
            match opcode:
                case Opcode.SCHEMA:
                    yield Schema.read(own)
                case Opcode.CHANNEL:
                    yield Channel.read(own)
                case Opcode.MESSAGE:
                    yield Message.read(own, length)
                case _:
                    return
        except _INVALID:
            return


def _decompressed(chunk: Chunk) -> bytes:
    """Return the part of a chunk that can be decompressed."""
    if chunk.compression != "zstd":
        return chunk.data if not chunk.compression else b""
    stream, found = ZstdDecompressor().decompressobj(), bytearray()
    for at in range(0, len(chunk.data), _PIECE):
        try:
            found += stream.decompress(chunk.data[at : at + _PIECE])
        except ZstdError:
            break
        if len(found) > chunk.uncompressed_size:
            break
    return bytes(found[: chunk.uncompressed_size])


def _summary(file: BinaryIO, size: int) -> list[Schema | Channel]:
    """Return the types of a finished file, if it has a summary; raises one of ``_INVALID``."""
    at = size - len(MAGIC) - _FOOTER.size
    footer = _read(file, at, _FOOTER.size)
    opcode, length, begin, _, crc = _FOOTER.unpack(footer)
    if opcode != Opcode.FOOTER or length != _FOOTER.size - _HEAD.size or begin > at:
        raise ValueError("no footer")
    if begin == 0:
        return []
    content = _read(file, begin, at - begin) + footer
    if crc and zlib.crc32(content[:-4]) != crc:  # 0: none was computed
        raise ValueError("wrong CRC")
    records = StreamReader(io.BytesIO(content + MAGIC), skip_magic=True).records
    return [record for record in records if isinstance(record, Schema | Channel)]
