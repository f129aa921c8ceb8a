"""Watching outputs of a running dataflow: what the coordinator and daemons tell each other; no I/O.

A client's watch becomes one *stream* for each daemon that runs a node of it. A stream has one chunk
on its way at a time: the next is sent after :class:`MoreTopics`, when the client has taken the
last. What comes meanwhile is kept within bounds and then dropped, oldest first, and counted.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from dora_config.protocol.dataflow import DataflowUuid
from dora_config.protocol.envelope import Message

MAX_TOPICS: Final = 64
"""Outputs that one watch may have."""

MAX_CHUNK: Final = 512 * 1024
"""Characters of samples in one chunk, about."""

SampleBytes = Annotated[int, Field(ge=256, le=256 * 1024)]
"""Characters of JSON that one message may take; longer ones are shortened."""
WindowSeconds = Annotated[float, Field(gt=0, le=3600)]


class TopicRate(Message):
    """Intervals between the messages of one output in the last seconds; times in seconds."""

    name: str
    """``node/output``."""
    messages: int = 0
    average: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    deviation: float | None = None
    """Standard deviation. ``None``: fewer than two messages came."""


class StreamTopics(Message):
    """Coordinator to daemon: watch these outputs; answered with :class:`TopicChunk` frames."""

    kind: Literal["stream_topics"] = "stream_topics"
    stream: int
    dataflow_id: DataflowUuid
    topics: Annotated[tuple[str, ...], Field(max_length=MAX_TOPICS)]
    rates: bool = False
    """Only the intervals between messages, no contents."""
    window: WindowSeconds = 10.0
    sample_bytes: SampleBytes = 65_536
    chunk_bytes: int = MAX_CHUNK
    """Less where the coordinator takes only short messages."""


class MoreTopics(Message):
    """Coordinator to daemon: the client took the last chunk."""

    kind: Literal["more_topics"] = "more_topics"
    stream: int


class EndTopics(Message):
    """Coordinator to daemon: nobody watches any more."""

    kind: Literal["end_topics"] = "end_topics"
    stream: int


class TopicUpdate(Message):
    """What was seen of the outputs on one machine since the last news."""

    samples: tuple[str, ...] = ()
    """Messages as JSON objects with ``timestamp``, ``name``, ``data`` and ``metadata``."""
    dropped: dict[str, int] = Field(default_factory=dict)
    """Messages that are in no ``samples``, by output: more came than could be shown."""
    rates: tuple[TopicRate, ...] = ()
    notes: tuple[str, ...] = ()
    """Remarks for the user: full sentences."""


class TopicChunk(Message):
    """Daemon to coordinator: news of a stream, or with ``done`` its end."""

    kind: Literal["topic_chunk"] = "topic_chunk"
    stream: int
    news: TopicUpdate = TopicUpdate()
    done: bool = False
    problem: str | None = None
    """Of an end: why it is no use to watch again. ``None``: the runner has ended."""


class WatchedTopics(Message):
    """Progress of a client's watch; to be answered with a ``Taken`` frame of this stream."""

    kind: Literal["watched_topics"] = "watched_topics"
    daemon: str
    stream: int
    news: TopicUpdate


class TopicsEnd(Message):
    """Answer to a client's watch: nothing more can come."""

    kind: Literal["topics_end"] = "topics_end"
    problems: tuple[str, ...] = ()
