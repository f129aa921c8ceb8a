"""Reader of the log files of a part: in order of time, filtered, in bounded chunks."""

from __future__ import annotations

import heapq
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import repeat
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

from dora_config.protocol.dataflow import LogFilter, LogPosition
from dora_config.protocol.runner_events import passes

CHUNK_BYTES = 256 * 1024
"""Size at which a chunk is returned."""
TORN_LINES = 100
"""Lines that are read in addition to a tail, because killed writers leave incomplete ones."""
BLOCK_BYTES = 65_536
"""Bytes read at once in a search from the end of a file."""
CHECKSUM_BYTES = 1024
"""Most bytes of the first line that identify a file."""


def open_parts(path: Path) -> list[BinaryIO]:
    """Open the rotated files of a log and the current one, oldest first; the caller closes them."""
    numbers = _numbers(path)
    # Newest first and one number more, because a rotation meanwhile renames each to the next.
    numbers.append(numbers[-1] + 1 if numbers else 1)
    opened: dict[int, BinaryIO] = {}
    for name in (path, *(path.with_name(f"{path.name}.{number}") for number in numbers)):
        if (part := _opened(name)) is not None and opened.setdefault(_inode(part), part) != part:
            part.close()
    return list(reversed(opened.values()))


def _numbers(path: Path) -> list[int]:
    """Return the numbers of the rotated files, newest (1) first."""
    prefix = f"{path.name}."
    try:
        names = os.listdir(path.parent)
    except FileNotFoundError:
        return []
    found = (name[len(prefix) :] for name in names if name.startswith(prefix))
    return sorted(int(number) for number in found if number.isdigit())


def _inode(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_ino


def matches(line: str, wanted: LogFilter) -> bool:
    """Whether a line is an entry that the filter accepts."""
    try:
        entry = json.loads(line)
        message = str(entry["msg"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
    if wanted.since is not None or wanted.until is not None:
        at = _unix_time(str(entry.get("ts", "")))
        if wanted.since is not None and at < wanted.since:
            return False
        if wanted.until is not None and at > wanted.until:
            return False
    lowest = wanted.per_node.get(str(entry.get("node")), wanted.level)
    if not passes(str(entry.get("level")), lowest):
        return False
    return wanted.grep is None or wanted.grep.lower() in message.lower()


def _unix_time(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


@dataclass(frozen=True, slots=True)
class ReadLine:
    """A whole line and the position behind it."""

    text: str
    end: LogPosition


@dataclass(slots=True)
class NodeLogReader:
    """Log of one node: its file, the rotated ones before it, and the read position."""

    path: Path
    _file: BinaryIO | None = None
    _rest: bytes = b""
    _offset: int = 0
    """Position of the first byte in ``_rest``."""
    _checksum: int = 0
    """Checksum of the first line of the file."""

    def history(
        self, after: LogPosition | None = None, last: int | None = None
    ) -> Iterator[ReadLine]:
        """Yield whole lines to the end of the current file, from the oldest file or ``after`` on.

        All lines are yielded if the file of ``after`` was rotated away; without ``after`` only the
        ``last`` ones, if given.
        """
        files = open_parts(self.path)
        known = [_checksum_of(file) for file in files]
        start, offset = 0, 0
        if after is not None and after[0] in known:
            start, offset = known.index(after[0]), after[1]
        elif after is None and last is not None:
            start, offset = _begin_of_last(files, last)
        yield from self._read(files, start, offset, known[start] if offset else 0)
        yield from self.new_lines()

    def _read(
        self, files: Sequence[BinaryIO], start: int, offset: int = 0, checksum: int = 0
    ) -> Iterator[ReadLine]:
        """Yield the lines from the file ``start`` on, whose first ``offset`` bytes are skipped.

        The last file stays open.
        """
        try:
            for file in files[start:]:
                self.close()
                self._file, self._offset, self._checksum = file, offset, checksum
                file.seek(offset)
                yield from self._rest_of_file()
                offset = checksum = 0
        finally:
            for file in files:
                if file is not self._file:
                    file.close()

    def new_lines(self) -> Iterator[ReadLine]:
        """Yield whole lines written since the last call, across rotations."""
        while True:
            if self._file is None:
                self._file = _opened(self.path)
                if self._file is None:
                    return
            yield from self._rest_of_file()
            if self._was_truncated():
                self.close()
            elif self._was_rotated():
                yield from self._rest_of_file()  # written after the read above
                yield from self._next_parts()
            else:
                return

    def _rest_of_file(self) -> Iterator[ReadLine]:
        assert self._file is not None
        while data := self._file.read(65536):
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                if self._offset == 0:
                    self._checksum = crc32((line + b"\n")[:CHECKSUM_BYTES])
                self._offset += len(line) + 1
                yield ReadLine(line.decode("utf-8", "replace"), (self._checksum, self._offset))

    def _next_parts(self) -> Iterator[ReadLine]:
        """Yield the lines of all later files; of all files if the current one was deleted."""
        assert self._file is not None
        files, known = open_parts(self.path), _inode(self._file)
        start = next((n for n, file in enumerate(files, 1) if _inode(file) == known), 0)
        yield from self._read(files, start)

    def _was_truncated(self) -> bool:
        assert self._file is not None
        return os.fstat(self._file.fileno()).st_size < self._file.tell()

    def _was_rotated(self) -> bool:
        assert self._file is not None
        try:
            return self.path.stat().st_ino != _inode(self._file)
        except FileNotFoundError:
            return False

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self._rest = b""
            self._offset = self._checksum = 0


def _opened(path: Path) -> BinaryIO | None:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        return None  # rotated meanwhile, or not written yet


def _begin_of_last(files: Sequence[BinaryIO], lines: int) -> tuple[int, int]:
    """Return the index of a file and the offset in it at which the last lines of all begin."""
    newlines = lines + 1  # also the one before the first of these lines
    for index in reversed(range(len(files))):
        end = files[index].seek(0, os.SEEK_END)
        while end > 0:
            begin = max(0, end - BLOCK_BYTES)
            files[index].seek(begin)
            data = files[index].read(end - begin)
            count = data.count(b"\n")
            if count >= newlines:
                at = len(data)
                for _ in range(newlines):
                    at = data.rfind(b"\n", 0, at)
                return index, begin + at + 1
            newlines -= count
            end = begin
    return 0, 0


def _checksum_of(file: BinaryIO) -> int:
    """Return the checksum of the first line of a file that was just opened."""
    checksum = crc32(file.readline(CHECKSUM_BYTES))
    file.seek(0)
    return checksum


def by_time(read: Mapping[str, Iterator[ReadLine]]) -> Iterator[tuple[str, ReadLine]]:
    """Yield the lines of several nodes, each with its node, in order of time."""
    named = (zip(repeat(name), lines, strict=False) for name, lines in read.items())
    return heapq.merge(*named, key=lambda one: _time_of(one[1].text))


@dataclass(slots=True)
class PartLogReader:
    """Merged logs of several nodes; nodes may be added at any time."""

    nodes: Mapping[str, NodeLogReader]
    wanted: LogFilter
    after: Mapping[str, LogPosition] = field(default_factory=dict)
    positions: dict[str, LogPosition] = field(init=False)
    """Position behind the last line of each node in the chunks so far."""
    _lines: Iterator[str] | None = field(default=None, init=False)
    _known: set[str] = field(default_factory=set, init=False)
    """Nodes that have been read."""
    _read_past: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.positions = dict(self.after)

    def next_chunk(self) -> list[str]:
        """Return more lines, or an empty list if there are none at the moment.

        Lines that exist at the first call are in order of time, as are those of each later read.
        """
        if self._lines is None:
            self._lines = self._new() if self._read_past else self._past()
        chunk = _chunk(self._lines)
        if not chunk:
            self._lines, self._read_past = None, True
        return chunk

    def _new(self) -> Iterator[str]:
        return self._chosen(
            {
                name: node.new_lines() if name in self._known else node.history()
                for name, node in self.nodes.items()
            }
        )

    def _past(self) -> Iterator[str]:
        # With any other filter, the last matching lines may be anywhere in the files.
        tail, last = self.wanted.tail, None
        if tail is not None and self.wanted == LogFilter(tail=tail):
            last = tail + TORN_LINES
        chosen: Iterable[str] = self._chosen(
            {name: node.history(self.after.get(name), last) for name, node in self.nodes.items()}
        )
        if self.wanted.tail is not None:
            chosen = deque(chosen, maxlen=self.wanted.tail)
        yield from chosen

    def _chosen(self, read: Mapping[str, Iterator[ReadLine]]) -> Iterator[str]:
        """Yield the lines that match, by time."""
        self._known.update(read)
        for name, line in by_time(read):
            self.positions[name] = line.end
            if matches(line.text, self.wanted):
                yield line.text

    def close(self) -> None:
        for node in self.nodes.values():
            node.close()


def _time_of(line: str) -> str:
    """Return the start of an entry, its time in UTC, which sorts as text."""
    return line[:40]


def _chunk(lines: Iterable[str]) -> list[str]:
    taken, size = [], 0
    for line in lines:
        taken.append(line)
        size += len(line)
        if size >= CHUNK_BYTES:
            break
    return taken
