"""Exports recordings to Parquet, one file per output."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dora_recordings.arrow_messages import RecordedMessage, decode
from dora_recordings.conversion import CannotConvert

BATCH_BYTES = 16 << 20
"""Size of the messages in one row group."""


def export(messages: Iterable[RecordedMessage], folder: Path) -> dict[Path, int]:
    """Write a row for each message; return the number of rows by file.

    Columns: ``log_time``, ``publish_time``, ``sequence``, ``metadata`` (JSON) and ``data``, the
    list of the array's values. An output that changed its type gets a further file for each; so
    does one with the same file name as another, as ``a/b_c`` and ``a_b/c``.
    Raises CannotConvert and OSError, and then leaves no file and no new folder.
    """
    tables: dict[tuple[str, bytes], _Table] = {}
    renamed: list[Path] = []
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for message in messages:
            key = message.topic, message.schema
            if key not in tables:
                name = _free_name(message.topic, {table.path.stem for table in tables.values()})
                tables[key] = _Table(folder / f"{name}.parquet", message.topic)
            tables[key].add(message)
        for table in tables.values():
            table.finish()
        for table in tables.values():
            table.unfinished.rename(table.path)
            renamed.append(table.path)
    except BaseException:
        for path in renamed:
            path.unlink(missing_ok=True)
        raise
    finally:
        for table in tables.values():
            table.discard()
        if is_new:
            with suppress(OSError):  # the folder has other files
                folder.rmdir()
    return {table.path: table.rows for table in tables.values()}


def _free_name(topic: str, used: set[str]) -> str:
    name = topic.replace("/", "_")
    numbered = (f"{name}-{number}" for number in count(2))
    return next(one for one in chain([name], numbered) if one not in used)


class _Table:
    def __init__(self, path: Path, topic: str) -> None:
        if path.exists():
            raise CannotConvert(f"{path} exists; choose another folder with -o")
        self.path = path
        self.unfinished = path.with_name(f".{path.name}.new")
        self.rows = 0
        self._topic = topic
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[RecordedMessage] = []
        self._bytes = 0

    def add(self, message: RecordedMessage) -> None:
        self._waiting.append(message)
        self._bytes += len(message.data)
        self.rows += 1
        if self._bytes >= BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        if not self._waiting:
            return
        try:
            decoded = [decode(message.schema, message.data) for message in self._waiting]
        except ValueError as error:
            raise CannotConvert(f"output {self._topic}: {error}") from error
        arrays = [_plain(array) for array, _ in decoded]
        offsets = [0]
        for array in arrays:
            offsets.append(offsets[-1] + len(array))
        time = pa.timestamp("ns", tz="UTC")
        waiting = self._waiting
        columns: dict[str, Any] = {
            "log_time": pa.array([one.log_time for one in waiting], time),
            "publish_time": pa.array([one.publish_time for one in waiting], time),
            "sequence": pa.array([one.sequence for one in waiting], pa.uint32()),
            "metadata": pa.array([metadata.decode() or "{}" for _, metadata in decoded]),
            "data": pa.LargeListArray.from_arrays(
                pa.array(offsets, pa.int64()), pa.concat_arrays(arrays)
            ),
        }
        table = pa.table(columns)
        try:
            if self._writer is None:
                self._writer = pq.ParquetWriter(self.unfinished, table.schema, compression="zstd")
            self._writer.write_table(table)
        except pa.ArrowException as error:
            raise CannotConvert(f"output {self._topic} cannot be exported: {error}") from error
        self._waiting.clear()
        self._bytes = 0

    def finish(self) -> None:
        """Write what is left and close the file, which is then complete."""
        self.flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def discard(self) -> None:
        """Close and remove a file that was not renamed."""
        if self._writer is not None:
            abandon(self._writer)
        self.unfinished.unlink(missing_ok=True)


def abandon(writer: pq.ParquetWriter) -> None:
    """Close a file that will be removed; its last bytes may not fit on the disk."""
    with suppress(OSError, pa.ArrowException):
        writer.close()
    writer.is_open = False  # otherwise its destructor closes it again and prints the error


def _plain(array: Any) -> Any:
    """Return the values in a type that Parquet has."""
    if isinstance(array, pa.ExtensionArray):
        return _plain(array.storage)
    if isinstance(array, pa.DictionaryArray):
        return array.dictionary_decode()
    kind = _with_fields(array.type)
    # Old versions of Arrow cannot cast to a struct with more fields.
    return array if kind == array.type else pa.array(array.to_pylist(), kind)


def _with_fields(kind: pa.DataType) -> pa.DataType:
    """Return a type with at least one field per struct; messages of ROS 2 may have none."""
    if pa.types.is_struct(kind):
        fields = [field.with_type(_with_fields(field.type)) for field in kind]
        return pa.struct(fields or [pa.field("empty", pa.null())])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_with_fields(kind.value_type)))
    return kind
