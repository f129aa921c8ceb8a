"""Merges the files of several machines into one, by corrected time."""

from __future__ import annotations

import heapq
import os
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

from dora_config.atomic_write import sync_folder
from dora_config.protocol.recorders import RecordingPlan
from dora_config.protocol.recordings import ClockSample
from dora_node_api.data.metadata import decode_metadata, encode_metadata, move_times
from dora_recordings import __version__
from dora_recordings.arrow_messages import (
    METADATA_KEY,
    NOTES_KEY,
    OWN_TIMES_KEY,
    RecordedMessage,
    decode_all,
    encode,
)
from dora_recordings.conversion import unfinished
from dora_recordings.mcap_file import McapFile
from dora_recordings.reading import Recording, UnreadableRecording

_TIMES = ("stamp", "timestamp")
_NUMBER = re.compile(r"(\d+)")


BUCKET_NS: Final = 60_000_000_000
"""Span of samples of which only the one with the shortest round trip is used: delays on the way
falsify the others."""


def _with_moved_times(message: RecordedMessage, nanoseconds: int, *, noted: bool) -> bytes:
    """Return the data of a message with `stamp` and `timestamp` in its metadata moved.

    The original times are kept, because notes of events identify messages by them. ``noted``: keep
    them also if only `publish_time` is moved.
    """
    if not nanoseconds or not (
        noted or any(f'"{name}"'.encode() in message.data for name in _TIMES)
    ):
        return message.data
    try:
        array, custom = decode_all(message.schema, message.data)
        metadata = decode_metadata(custom.pop(METADATA_KEY, b""))
    except ValueError:  # invalid messages are reported when the file is read
        return message.data
    own = {name: metadata[name] for name in _TIMES if name in metadata}
    custom[OWN_TIMES_KEY] = encode_metadata({"publish_time": message.publish_time, **own})
    move_times(metadata, nanoseconds)
    schema = pa.ipc.read_schema(pa.py_buffer(message.schema))
    return encode(array, encode_metadata(metadata), schema, len(message.schema), custom)


class ClockCorrection:
    """Converts CLOCK_MONOTONIC of one boot of a machine to the coordinator's Unix time.

    The clocks of machines drift apart by some 0.1 s an hour, so times between two samples are
    interpolated. Earlier and later times have the offset of the nearest sample. Order is kept.
    """

    def __init__(self, samples: Iterable[ClockSample], boot_id: str) -> None:
        best: dict[int, ClockSample] = {}
        for sample in samples:
            if sample.boot_id != boot_id:
                continue
            bucket = sample.monotonic_ns // BUCKET_NS
            if bucket not in best or sample.round_trip_ns < best[bucket].round_trip_ns:
                best[bucket] = sample
        self._machine: list[int] = []
        self._coordinator: list[int] = []
        for sample in sorted(best.values(), key=lambda one: one.monotonic_ns):
            # A coordinator that was restarted may have another clock; time does not go back.
            latest = self._coordinator[-1] if self._coordinator else sample.coordinator_ns
            self._machine.append(sample.monotonic_ns)
            self._coordinator.append(max(sample.coordinator_ns, latest))
        self.round_trip_ns = min((one.round_trip_ns for one in best.values()), default=None)
        """Shortest round trip; times are off by half of it at most. None without samples."""

    def __bool__(self) -> bool:
        return bool(self._machine)

    def coordinator_ns(self, monotonic_ns: int) -> int:
        """Return the coordinator's time; there must be samples."""
        machine, coordinator = self._machine, self._coordinator
        after = bisect_right(machine, monotonic_ns)
        if after == 0 or after == len(machine):
            near = min(after, len(machine) - 1)
            return coordinator[near] + monotonic_ns - machine[near]
        before = after - 1
        span = machine[after] - machine[before]
        rise = coordinator[after] - coordinator[before]
        return coordinator[before] + (monotonic_ns - machine[before]) * rise // span


@dataclass(frozen=True, slots=True)
class MachineFiles:
    """Files that one machine has recorded."""

    machine: str
    files: tuple[Path, ...]
    clock: tuple[ClockSample, ...] = ()


@dataclass(frozen=True, slots=True)
class Merged:
    recorded: dict[str, int]
    """Messages by output."""
    uncorrected: tuple[str, ...]
    """Machines without clock samples, whose times are those of their own clocks."""
    damage: tuple[str, ...]
    """Unreadable parts, each with its file."""


def merge(
    parts: Sequence[MachineFiles], plan: RecordingPlan, lost: Mapping[str, int], target: Path
) -> Merged:
    """Write the messages of all machines to ``target``, which must not exist.

    ``log_time`` and ``publish_time`` become times of the coordinator; an attachment for each
    file has the offset. Damaged parts are left out. Raises CannotConvert and OSError.
    """
    facts = {
        "dataflow_id": plan.dataflow_id,
        "dataflow": plan.name or "",
        "machine": ", ".join(part.machine for part in parts),
        "working_dir": plan.working_dir,
        "recording": plan.recording,
        "dora": __version__,
    }
    with unfinished(target) as new, McapFile(new, plan.dataflow, facts) as file:
        streams = [_MachineStream(part) for part in parts]
        recorded: dict[str, int] = {}
        for message in heapq.merge(*streams, key=lambda one: one.log_time):
            file.add(message)
            recorded[message.topic] = recorded.get(message.topic, 0) + 1
        for stream in streams:
            for clock in stream.clocks:
                file.add_clock(clock)
        damage = tuple(text for stream in streams for text in stream.damage())
        file.finish(lost)
        with new.open("rb") as written:
            os.fsync(written.fileno())  # the caller may remove the originals
    sync_folder(target.parent)
    return Merged(recorded, tuple(s.machine for s in streams if s.uncorrected), damage)


class _MachineStream:
    """Messages of one machine, with corrected times."""

    def __init__(self, part: MachineFiles) -> None:
        self.machine = part.machine
        self.clocks: list[dict[str, str]] = []
        self.uncorrected = False
        self._part = part
        self._recordings: list[Recording] = []
        self._unreadable: list[str] = []

    def damage(self) -> Iterator[str]:
        """Yield what could not be read, each with its file."""
        yield from self._unreadable
        for recording in self._recordings:
            for damage in recording.damage:
                yield f"{self.machine}: {recording.path.name} is damaged: {damage}"

    def __iter__(self) -> Iterator[RecordedMessage]:
        for path in sorted(self._part.files, key=_numbers):
            try:
                recording = Recording(path)
                epoch = int(recording.facts.source.get("epoch_ns", 0))
            except UnreadableRecording:
                self._unreadable.append(f"{self.machine}: {path.name} is not an MCAP file")
            except ValueError:
                self._unreadable.append(f"{self.machine}: {path.name}: epoch_ns is not an integer")
            else:
                self._recordings.append(recording)
                yield from self._file(recording, epoch)

    def _file(self, recording: Recording, epoch: int) -> Iterator[RecordedMessage]:
        source = recording.facts.source
        correction = ClockCorrection(self._part.clock, source.get("boot_id", ""))
        if not correction:
            self.uncorrected = True
        first = last = None
        noted = False
        for message in recording.messages():
            offset = 0
            if correction:
                offset = message.log_time - correction.coordinator_ns(message.log_time - epoch)
            last = message.log_time, offset
            noted = noted or NOTES_KEY in message.data
            first = first or last
            yield RecordedMessage(
                message.topic,
                message.type_name,
                message.schema,
                message.log_time - offset,
                message.publish_time - offset,
                message.sequence,
                _with_moved_times(message, -offset, noted=noted),
            )
        if first is not None and last is not None:
            self._note(recording.path, first, last, correction)

    def _note(
        self,
        path: Path,
        first: tuple[int, int],
        last: tuple[int, int],
        correction: ClockCorrection,
    ) -> None:
        """Store the offset of the machine's clock at the first and the last message."""
        clock = {
            "machine": self.machine,
            "file": path.name,
            "first_ns": str(first[0]),
            "first_offset_ns": str(first[1]),
            "last_ns": str(last[0]),
            "last_offset_ns": str(last[1]),
        }
        if correction.round_trip_ns is not None:
            clock["round_trip_ns"] = str(correction.round_trip_ns)
        self.clocks.append(clock)


def _numbers(path: Path) -> list[int | str]:
    """Return the sort key of a machine's files by the order in which they were begun."""
    return [int(word) if word.isdigit() else word for word in _NUMBER.split(path.name)]
