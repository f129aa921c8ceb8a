"""Reader of the log files of a part: in order of time, filtered, in bounded chunks."""

from __future__ import annotations

import heapq
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from dora_config.protocol.dataflow import LogFilter
from dora_config.protocol.runner import LOG_LEVELS
from dora_daemon.agent.logs.rotation import numbers, open_parts_after

CHUNK_BYTES = 256 * 1024
"""Size at which a chunk is returned."""

_RANK: dict[str, int] = {level: rank for rank, level in enumerate(LOG_LEVELS)}


def matches(line: str, wanted: LogFilter) -> bool:
    """Whether a line is an entry that the filter accepts."""
    try:
        entry = json.loads(line)
        message = str(entry["msg"])
    except (ValueError, KeyError, TypeError):
        return False
    if wanted.since is not None or wanted.until is not None:
        at = _unix_time(str(entry.get("ts", "")))
        if wanted.since is not None and at < wanted.since:
            return False
        if wanted.until is not None and at > wanted.until:
            return False
    if _RANK.get(str(entry.get("level")), 0) < _RANK[wanted.level]:
        return False
    return wanted.grep is None or wanted.grep.lower() in message.lower()


def _unix_time(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


@dataclass(slots=True)
class NodeLogReader:
    """Log of one node: its file, the rotated ones before it, and the read position."""

    path: Path
    _file: BinaryIO | None = None
    _rest: bytes = b""

    def history(self) -> Iterator[str]:
        """Yield whole lines from the oldest rotated file to the end of the current one."""
        for old in sorted(numbers(self.path), reverse=True):
            try:
                with open(self.path.with_name(f"{self.path.name}.{old}"), "rb") as file:
                    for line in file:
                        yield line.decode("utf-8", "replace").rstrip("\n")
            except FileNotFoundError:
                continue  # rotated meanwhile
        yield from self.new_lines()

    def new_lines(self) -> Iterator[str]:
        """Yield whole lines written since the last call, across rotations."""
        while True:
            if self._file is None:
                try:
                    self._file = open(self.path, "rb")  # noqa: SIM115 - kept open between calls
                except FileNotFoundError:
                    return
            yield from self._rest_of_file()
            if self._was_truncated():
                self.close()
            elif self._was_rotated():
                yield from self._rest_of_file()  # written after the read above
                yield from self._next_parts()
            else:
                return

    def _rest_of_file(self) -> Iterator[str]:
        assert self._file is not None
        while data := self._file.read(65536):
            *lines, self._rest = (self._rest + data).split(b"\n")
            yield from (line.decode("utf-8", "replace") for line in lines)

    def _next_parts(self) -> Iterator[str]:
        """Yield lines of the files that were begun since; the last one stays open."""
        assert self._file is not None
        parts = open_parts_after(self.path, self._file)
        try:
            while parts:
                self.close()
                self._file = parts.pop(0)
                yield from self._rest_of_file()
        finally:
            for part in parts:
                part.close()

    def _was_truncated(self) -> bool:
        assert self._file is not None
        return os.fstat(self._file.fileno()).st_size < self._file.tell()

    def _was_rotated(self) -> bool:
        assert self._file is not None
        try:
            return self.path.stat().st_ino != os.fstat(self._file.fileno()).st_ino
        except FileNotFoundError:
            return False

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self._rest = b""


@dataclass(slots=True)
class PartLogReader:
    """Merged logs of several nodes."""

    nodes: list[NodeLogReader]
    wanted: LogFilter
    _lines: Iterator[str] | None = field(default=None, init=False)
    _read_past: bool = field(default=False, init=False)

    def next_chunk(self) -> list[str]:
        """Return more lines, or an empty list if there are none at the moment.

        Lines that exist at the first call are in order of time.
        """
        if self._lines is None:
            self._lines = self._new() if self._read_past else self._past()
        chunk = _chunk(self._lines)
        if not chunk:
            self._lines, self._read_past = None, True
        return chunk

    def _new(self) -> Iterator[str]:
        for node in self.nodes:
            yield from (line for line in node.new_lines() if matches(line, self.wanted))

    def _past(self) -> Iterator[str]:
        merged = heapq.merge(*(node.history() for node in self.nodes), key=_time_of)
        chosen: Iterable[str] = (line for line in merged if matches(line, self.wanted))
        if self.wanted.tail is not None:
            chosen = deque(chosen, maxlen=self.wanted.tail)
        yield from chosen

    def close(self) -> None:
        for node in self.nodes:
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
