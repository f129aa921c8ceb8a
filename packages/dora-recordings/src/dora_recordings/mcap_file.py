"""One MCAP file that is being written: chunked, compressed with zstd, indexed when it is closed.

A chunk is complete on disk at most a second after its first message, so a file whose recorder was
killed is readable up to then.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self, cast

from mcap.writer import CompressionType, Writer

from dora_config.process_identity import boot_id
from dora_node_api.protocol.messages import RecordingSource
from dora_recordings import __version__
from dora_recordings.arrow_messages import ENCODING, RecordedMessage
from dora_recordings.message_checks import (
    SEQUENCES,
    checks_record,
    message_check,
    type_check,
)

PROFILE = "dora"
DATAFLOW, SOURCE, CLOCK, LOST = "dataflow.yml", "source.json", "clock.json", "lost.json"
"""Names of attachments, which unlike metadata records have a CRC."""
CHUNK_BYTES = 1 << 20
"""Uncompressed bytes of a full chunk."""
FLUSH_SECONDS = 0.5
"""Seconds after the first message of a chunk until the chunk is written."""


class McapFile:
    """File of a recording, and context manager that abandons it unless it was finished."""

    def __init__(self, path: Path, dataflow: str | None, facts: Mapping[str, str]) -> None:
        """Create the file. Raises OSError, FileExistsError among others.

        ``dataflow``: YAML; None if `add_dataflow` follows.
        """
        self.path = path
        self._started: float | None = None
        """Time of the first message, by CLOCK_MONOTONIC."""
        self._channels: dict[tuple[str, bytes], tuple[int, int]] = {}
        """Number and `type_check` of each channel, by topic and schema."""
        self._schemas: dict[tuple[str, bytes], int] = {}
        self._checks: list[int] = []
        """Checksums of the messages of the chunk in progress."""
        self._unflushed_since: float | None = None
        self._whole = 0
        """Size up to the end of the last chunk."""
        self.unwritten: dict[str, int] = {}
        """Messages of the chunk in progress, which is not on disk, by output."""
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._stream = _Whole(self._descriptor)
        self._writer = Writer(cast("IO[Any]", self._stream), CHUNK_BYTES, CompressionType.ZSTD)
        try:
            self._start(dataflow, facts)
        except BaseException:
            self.abandon()
            path.unlink()
            raise

    def _start(self, dataflow: str | None, facts: Mapping[str, str]) -> None:
        self._writer.start(PROFILE, f"dora {__version__}")
        if dataflow is not None:
            self.add_dataflow(dataflow)
        self._attach(SOURCE, "application/json", json.dumps(dict(facts)))
        self._whole = self.size

    def _attach(self, name: str, media_type: str, text: str) -> None:
        now = time.time_ns()
        self._writer.add_attachment(now, now, name, media_type, text.encode())

    def add_dataflow(self, dataflow: str) -> None:
        self._attach(DATAFLOW, "application/yaml", dataflow)

    def add_clock(self, clock: Mapping[str, str]) -> None:
        """Add a relation of clocks, by which files of several machines can be aligned."""
        self._attach(CLOCK, "application/json", json.dumps(dict(clock)))

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._stream.tell()

    @property
    def age(self) -> float:
        """Seconds since the first message."""
        return 0.0 if self._started is None else time.monotonic() - self._started

    def add(self, message: RecordedMessage) -> None:
        """Write a message. Raises OSError."""
        self._started = self._started or time.monotonic()
        size = self.size
        channel, of_type = self._channel(message)
        self._checks.append(message_check(message, of_type))
        self._writer.add_message(
            channel,
            message.log_time,
            message.data,
            message.publish_time,
            message.sequence % SEQUENCES,
        )
        self.unwritten[message.topic] = self.unwritten.get(message.topic, 0) + 1
        if self.size != size:  # the writer has ended the chunk
            self._written(size)
        elif self._unflushed_since is None:
            self._unflushed_since = time.monotonic()

    def _channel(self, message: RecordedMessage) -> tuple[int, int]:
        """Return the channel of an output and a type, and its checksum."""
        key = message.topic, message.schema
        channel = self._channels.get(key)
        if channel is None:
            name = message.type_name, message.schema
            if name not in self._schemas:
                self._schemas[name] = self._writer.register_schema(
                    message.type_name, ENCODING, message.schema
                )
            node, _, output = message.topic.partition("/")
            number = self._writer.register_channel(
                message.topic, ENCODING, self._schemas[name], {"node": node, "output": output}
            )
            channel = self._channels[key] = number, type_check(message)
        return channel

    def flush_if_due(self) -> None:
        """Write the chunk in progress if it is old. Raises OSError."""
        since = self._unflushed_since
        if since is not None and time.monotonic() - since >= FLUSH_SECONDS:
            self._flush()

    def _flush(self) -> None:
        begin = self.size
        self._writer.flush()
        self._written(begin)

    def _written(self, chunk: int) -> None:
        """Process that the chunk which begins at byte ``chunk`` was written."""
        if self._checks:
            self._stream.write(checks_record(chunk, self._checks))
            self._checks.clear()
        self._whole = self.size
        self.unwritten.clear()
        self._unflushed_since = None

    def finish(self, lost: Mapping[str, int]) -> None:
        """Write the index and close the file. Raises OSError."""
        self._flush()
        self._attach(LOST, "application/json", json.dumps(dict(lost)))
        self._writer.finish()
        self._close()

    def abandon(self) -> None:
        """Close the file without an index: it has all messages up to its last chunk."""
        if self._descriptor >= 0:
            with suppress(OSError):
                os.ftruncate(self._descriptor, self._whole)
            self._close()

    def _close(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abandon()


def file_facts(source: RecordingSource, dataflow_id: str, epoch_ns: int) -> dict[str, str]:
    """Return the facts about this process and its dataflow that a recording contains."""
    import pyarrow as pa

    return {
        "dataflow_id": dataflow_id,
        "dataflow": source.name or "",
        "machine": source.machine_id or "",
        "host": socket.gethostname(),
        "working_dir": source.working_dir,
        "epoch_ns": str(epoch_ns),
        "boot_id": boot_id(),
        "dora": __version__,
        "python": platform.python_version(),
        "pyarrow": pa.__version__,
    }


def clock_now() -> dict[str, str]:
    """Return both clocks of this machine."""
    return {
        "realtime_ns": str(time.time_ns()),
        "monotonic_ns": str(time.monotonic_ns()),
        "boot_id": boot_id(),
    }


class _Whole:
    """Unbuffered stream, because a buffer could not be flushed to a full disk."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = 0

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            written = os.write(self._descriptor, view)
            self._size += written
            view = view[written:]
        return len(data)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        """Do nothing: the stream has no buffer."""
