"""What the messages of a recording show, by the dataflow's types and their metadata; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dora_daemon.recording.arrow_messages import RecordedMessage, decode
from dora_daemon.recording.ros_topics import ros_topics
from dora_node_api.data.metadata import decode_metadata
from dora_node_api.data.visual_kinds import VisualKind, output_types, visual_kind


@dataclass(frozen=True, slots=True)
class DecodedMessage:
    """A message with its contents."""

    message: RecordedMessage
    array: pa.Array
    metadata: Mapping[str, Any]
    declared: str | None
    """Type of the output in the dataflow file."""
    kind: VisualKind | None


class VisualDecoder:
    def __init__(self, dataflow: Mapping[str, Any] | None) -> None:
        """``dataflow``: as recorded."""
        self._types = {
            output: topic.standard_type
            for output, topic in ros_topics(dataflow).items()
            if topic.standard_type is not None
        }
        self._types |= output_types(dataflow or {})

    def decode(self, message: RecordedMessage) -> DecodedMessage:
        """Raises ValueError for invalid bytes."""
        array, encoded = decode(message.schema, message.data)
        metadata = decode_metadata(encoded)
        declared = self._types.get(message.topic)
        kind = visual_kind(array.type, metadata, declared)
        return DecodedMessage(message, array, metadata, declared, kind)
