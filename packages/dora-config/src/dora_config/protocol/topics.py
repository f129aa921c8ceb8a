"""Messages for watching outputs of a running dataflow; no I/O.

A client's watch becomes one *stream* per daemon; equal watches can share one. Each stream has at
most one chunk in flight: the next is sent after :class:`ReadOn`, when a client has acknowledged
the last. Messages in between are kept up to a limit; the oldest are dropped and counted.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from dora_config.protocol.envelope import DataflowUuid, Message

MAX_TOPICS: Final = 64
"""Largest number of outputs in one watch."""

MAX_CHUNK: Final = 512 * 1024
"""Approximate limit of the characters of samples in one chunk."""

SampleBytes = Annotated[int, Field(ge=256, le=256 * 1024)]
"""Limit of the characters of JSON per message; longer messages are shortened."""
WindowSeconds = Annotated[float, Field(gt=0, le=3600)]
MaxRate = Annotated[float | None, Field(gt=0, le=1000)]
"""Messages of each output that are sent per second; the others are counted as dropped."""
PictureBytes = Annotated[int, Field(ge=0, le=256 * 1024)]
"""Limit of the compressed bytes of an image; 0: images are sent as other messages."""
WholePictureBytes = Annotated[int, Field(ge=0, le=32 * 1024 * 1024)]
"""Limit of the bytes of a compressed image that its machine cannot reduce; it is sent in pieces."""


class TopicRate(Message):
    """Intervals between recent messages of one output, in seconds."""

    name: str
    """``node/output``."""
    messages: int = 0
    average: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    deviation: float | None = None
    """Standard deviation; ``None`` for fewer than two messages."""


class TopicSelection(Message):
    """Outputs that are watched, and limits of what is sent about them."""

    topics: Annotated[tuple[str, ...], Field(max_length=MAX_TOPICS)] = ()
    """Outputs as ``node/output``; empty: every output of the dataflow."""
    rates: bool = False
    """Send only the intervals between messages, without contents."""
    window: WindowSeconds = 10.0
    sample_bytes: SampleBytes = 65_536
    max_rate: MaxRate = None
    picture_bytes: PictureBytes = 0
    whole_picture_bytes: WholePictureBytes = 0


class StreamTopics(TopicSelection, kind="stream_topics"):
    """Coordinator to daemon: watch outputs; answered with :class:`TopicChunk` frames."""

    stream: int
    dataflow_id: DataflowUuid
    chunk_bytes: int = MAX_CHUNK
    """Lower where the coordinator accepts only short messages."""


class TopicUpdate(Message):
    """Messages and rates of the outputs on one machine since the last update."""

    samples: tuple[str, ...] = ()
    """Messages as JSON objects with ``timestamp``, ``name``, ``data`` and ``metadata``; images
    with ``picture``, or ``unshown`` and the reason, if the request has ``picture_bytes``.
    """
    dropped: dict[str, int] = Field(default_factory=dict)
    """Number of messages that were left out of ``samples``, by output."""
    rates: tuple[TopicRate, ...] = ()
    notes: tuple[str, ...] = ()
    """Remarks for the user, as full sentences."""
    piece: str = ""
    """Next part of a message that is longer than an update; then there are no ``samples``."""
    more: bool = False
    """Further parts follow; otherwise the message is complete with ``piece``."""


class TopicChunk(Message, kind="topic_chunk"):
    """Daemon to coordinator: an update of a stream, or with ``done`` its end."""

    stream: int
    update: TopicUpdate = TopicUpdate()
    done: bool = False
    problem: str | None = None
    """Why another watch would fail too; ``None``: the runner has ended."""


class WatchedTopics(Message, kind="watched_topics"):
    """Progress of a client's watch; acknowledged with a ``StreamAck`` frame."""

    daemon: str
    stream: int
    update: TopicUpdate


class TopicsEnd(Message, kind="topics_end"):
    """Answer to a client's watch: it has ended."""

    problems: tuple[str, ...] = ()
