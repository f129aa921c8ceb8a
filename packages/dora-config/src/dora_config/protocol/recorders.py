"""Messages of recorder processes, and the plan of a recording; no I/O.

The process that starts a recorder gives it a :class:`RecordingRequest`. The recorder finishes the
file when its standard input ends, and writes a :class:`RecorderStatus` to its standard output when
it begins and when it has ended. With a ``status_file`` it outlives the starting process: it ends
with SIGTERM, and writes its status to that file as well, each second.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from dora_config.frozen import UnixTime
from dora_config.protocol.envelope import Message

RecordingId = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]


class RecordingLimits(Message):
    """Limits of a recording and of each of its files; None: no limit."""

    max_bytes: int | None = None
    """Size of all files."""
    max_seconds: float | None = None
    """Seconds since the first message."""
    split_bytes: int | None = None
    """Size of one file."""
    split_seconds: float | None = None

    @property
    def splits(self) -> bool:
        return self.split_bytes is not None or self.split_seconds is not None

    def ended(self, total_bytes: int, seconds: float) -> bool:
        """Return whether the recording, of this size and age, ends."""
        return _reached(self.max_bytes, total_bytes) or _reached(self.max_seconds, seconds)

    def file_ended(self, file_bytes: int, seconds: float) -> bool:
        """Return whether the next file begins."""
        return _reached(self.split_bytes, file_bytes) or _reached(self.split_seconds, seconds)


def _reached(limit: float | None, value: float) -> bool:
    return limit is not None and value >= limit


class RecordingRequest(Message):
    """Outputs to record, and the file."""

    dataflow_id: str
    patterns: tuple[str, ...] = ()
    """Outputs by shell patterns such as ``camera/*``; empty: all."""
    path: str
    """Absolute path of the file; with splitting, numbered names are made from it."""
    limits: RecordingLimits = RecordingLimits()
    status_file: str | None = None
    """Absolute path."""
    dataflow: str | None = None
    """YAML of the whole dataflow, of which the runner has a part."""
    working_dir: str | None = None
    """Folder of the dataflow file; by default the one of the runner."""
    count_on: bool = False
    """Count the lost messages after a failed write, until the recording would have ended."""
    none_is_fine: bool = False
    """Record nothing if no output matches, instead of failing."""


class RecorderEnd(StrEnum):
    """Why a recorder has ended."""

    STOPPED = "stopped"
    LIMIT = "limit"
    FAILED = "failed"
    DATAFLOW = "dataflow"
    """The nodes on this machine have ended."""
    RUNNER = "runner"
    """The runner ended unexpectedly."""


class RecorderStatus(Message):
    """Report of a recorder.

    Once the queues of all outputs exist, every message is recorded or counted.
    """

    pid: int
    start_time: int
    """Start of the process, see `dora_config.process_identity`."""
    boot_id: str
    end: RecorderEnd | None = None
    """Reason of the end; None: the recorder runs, unless its process was killed."""
    files: tuple[str, ...] = ()
    """Names without folder."""
    seconds: float = 0.0
    """Time since the first message."""
    recorded: dict[str, int] = Field(default_factory=dict)
    """Messages in the files, by output; also outputs without messages."""
    lost: dict[str, int] = Field(default_factory=dict)
    """Messages that were sent but not recorded, by output."""
    problem: str | None = None
    """Why the recording ended early."""


class RecordingPlan(Message):
    """Settings that all machines of a recording share."""

    recording: RecordingId
    dataflow_id: str = ""
    """Empty before the start of the dataflow, whose specification then contains the plan."""
    name: str | None = None
    """Name of the dataflow."""
    patterns: tuple[str, ...] = ()
    """Outputs by shell patterns such as ``camera/*``; empty: all."""
    limits: RecordingLimits = RecordingLimits()
    """Limits of each machine."""
    dataflow: str = ""
    """YAML of the whole dataflow."""
    working_dir: str = ""
    """Folder of the dataflow file, on the machine of the client."""
    machines: tuple[str, ...] = ()
    """All daemons that run nodes of the dataflow; empty until that is known."""
    started: UnixTime = 0.0
    """Unix time of the client."""
