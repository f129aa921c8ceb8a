"""Recorded messages for tests of exports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from dora_node_api.data.metadata import encode_metadata
from dora_recordings.arrow_messages import MessageEncoder, RecordedMessage


def message(
    topic: str,
    values: Any,
    metadata: Mapping[str, Any] | None = None,
    *,
    at: int = 0,
    sequence: int = 1,
) -> RecordedMessage:
    """Return a message; ``values``: an array or what `pyarrow.array` takes."""
    array = values if isinstance(values, pa.Array) else pa.array(values)
    return MessageEncoder().message(topic, array, encode_metadata(metadata), (at, at), sequence)
