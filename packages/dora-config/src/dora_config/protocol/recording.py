"""Messages between a command and the recorder process that it starts; no I/O.

The recorder reads a :class:`RecordingRequest` as the first line of its standard input, and finishes
the file when that ends. It writes a line of JSON for each report to its standard output.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from dora_config.protocol.envelope import Message


class RecordingRequest(Message):
    """What to record, and into which file."""

    socket: str
    """Of the runner."""
    dataflow_id: str
    patterns: tuple[str, ...] = ()
    """Outputs by shell patterns such as ``camera/*``; empty: all."""
    path: str
    """Absolute path of the file; with splitting, numbered names are made from it."""
    max_bytes: int | None = None
    """Size of all files at which the recording ends."""
    max_seconds: float | None = None
    split_bytes: int | None = None
    """Size of a file at which the next one begins."""
    split_seconds: float | None = None


class RecordingStarted(Message):
    """The queues of all outputs exist: every message from now on is recorded or counted."""

    kind: Literal["started"] = "started"
    topics: tuple[str, ...]
    path: str
    """The first file."""


class RecordingEnded(Message):
    """Last report of a recorder."""

    kind: Literal["ended"] = "ended"
    files: tuple[str, ...] = ()
    recorded: dict[str, int] = Field(default_factory=dict)
    """Messages in the files, by output."""
    lost: dict[str, int] = Field(default_factory=dict)
    """Messages that were sent but not recorded, by output."""
    problem: str | None = None
    """Why the recording ended early."""


RecordingReport = Annotated[RecordingStarted | RecordingEnded, Field(discriminator="kind")]
REPORTS: TypeAdapter[RecordingReport] = TypeAdapter(RecordingReport)
