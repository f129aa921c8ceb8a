"""One recorded message; pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RecordedMessage:
    """A message of an output, as it is in a file."""

    topic: str
    """``node/output``."""
    type_name: str
    schema: bytes
    """Serialized Arrow schema."""
    log_time: int
    """Nanoseconds of a clock that never steps back while a recorder runs."""
    publish_time: int
    """The sender's CLOCK_REALTIME."""
    sequence: int
    data: bytes
    """Arrow record batch, see ``arrow_messages``."""
