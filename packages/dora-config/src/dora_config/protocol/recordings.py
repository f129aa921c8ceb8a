"""Messages about the recordings of a cluster; no I/O.

In a cluster each machine records its own outputs. A client sends :class:`CallRecorders` to the
coordinator, which forwards its request to daemons and returns their replies. The coordinator keeps
nothing about recordings: plans, counts and files are on the disks of the machines. For the GET of a
file it sends :class:`SendRecording` to the machine, and passes on what the machine then uploads.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from dora_config.frozen import Count, UnixTime
from dora_config.protocol.envelope import Message, Request
from dora_config.protocol.recorders import RecordingId, RecordingPlan

FILE_NAME: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,240}\.mcap$"
"""Begins with the id of a machine, of at most 200 characters."""
FileName = Annotated[str, Field(pattern=FILE_NAME)]
Offset = Annotated[int, Field(ge=0, lt=2**63)]


class RecordedFile(Message):
    name: str
    size: Count


# ------------------------------------------------------------------------------- requests


class RecordPart(Message, kind="record_part"):
    """Record the outputs of this machine, also of later attempts of the part; idempotent.

    Answered with the :class:`RecordingStates` of this recording, which are empty on a machine
    without a part of the dataflow.
    """

    plan: RecordingPlan


class StopRecording(Message, kind="stop_recording"):
    """Finish the files; answered at once with :class:`RecordingStates`."""

    recording: RecordingId


class ListRecordings(Message, kind="list_recordings"):
    """List the recordings on this machine; answered with :class:`RecordingStates`."""


class DescribeRecording(Message, kind="describe_recording"):
    """Get what a merged file needs; answered with :class:`RecordingDescribed`."""

    recording: RecordingId


class SendRecording(Message, kind="send_recording"):
    """Upload a part of a file; answered at once with :class:`RecordingSize`."""

    recording: RecordingId
    file: FileName
    first: Offset = 0
    last: Offset | None = None
    """Position of the last byte; None, or beyond the end: to the end."""
    upload: str = ""
    """Path to which the part is PUT unless it is empty; without it, only the size is returned."""


class RemoveRecording(Message, kind="remove_recording"):
    """Remove an ended recording from this machine; answered with :class:`RecordingStates`."""

    recording: RecordingId
    files: tuple[RecordedFile, ...] | None = None
    """Refused if these are not its files: more was recorded since they were fetched."""


RecorderRequest = Annotated[
    RecordPart
    | StopRecording
    | ListRecordings
    | DescribeRecording
    | SendRecording
    | RemoveRecording,
    Field(discriminator="kind"),
]

# -------------------------------------------------------------------------------- replies


RecordingPhase = Literal["waiting", "recording", "ended"]
"""``waiting``: no recorder runs, because the nodes of this machine are being started."""


class RecordingState(Message):
    """One recording on one machine."""

    recording: RecordingId
    dataflow_id: str
    name: str | None = None
    machines: tuple[str, ...] = ()
    started: UnixTime = 0.0
    phase: RecordingPhase
    resumes: bool = False
    """Whether the recording continues when the nodes of this machine are started again."""
    files: tuple[RecordedFile, ...] = ()
    recorded: dict[str, Count] = Field(default_factory=dict)
    """Messages in the files, by output."""
    lost: dict[str, Count] = Field(default_factory=dict)
    """Messages that were sent but not recorded, by output."""
    problems: tuple[str, ...] = ()
    """Why messages are missing, as sentences."""


class RecordingStates(Message, kind="recording_states"):
    recordings: tuple[RecordingState, ...] = ()


class ClockSample(Message):
    """The time of the coordinator at one moment of a machine's CLOCK_MONOTONIC."""

    boot_id: str
    monotonic_ns: int
    coordinator_ns: int
    """Unix time."""
    round_trip_ns: int
    """The sample is off by half of this at most."""


class RecordingDescribed(Message, kind="recording_described"):
    plan: RecordingPlan
    clock: tuple[ClockSample, ...] = ()


class RecordingSize(Message, kind="recording_size"):
    size: Count


RecorderReply = Annotated[
    RecordingStates | RecordingDescribed | RecordingSize, Field(discriminator="kind")
]

# ------------------------------------------------------------------ coordinator and client


class MachineReply(Message):
    daemon: str
    reply: RecorderReply


class RecorderReplies(Message, kind="recorder_replies"):
    replies: tuple[MachineReply, ...] = ()
    problems: dict[str, str] = Field(default_factory=dict)
    """Daemons without a reply, with the reason as a full sentence."""


class CallRecorders(Message, Request[RecorderReplies], kind="call_recorders"):
    """Client to coordinator: forward a request to daemons."""

    daemons: tuple[str, ...] = ()
    """Empty: all that are connected."""
    request: RecorderRequest
