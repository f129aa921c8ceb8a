"""Kinds of a recording's messages for viewers, from the dataflow's types and their metadata."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dora_config.dataflow import node_kinds
from dora_config.plugins import PluginError
from dora_node_api.data.metadata import decode_metadata
from dora_node_api.data.visual_kinds import VisualKind, output_types, visual_kind
from dora_recordings.arrow_messages import RecordedMessage, decode


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
        self._types = {**_types_of_plugins(dataflow or {}), **output_types(dataflow or {})}

    def decode(self, message: RecordedMessage) -> DecodedMessage:
        """Return a message with its contents. Raises ValueError for invalid bytes."""
        array, encoded = decode(message.schema, message.data)
        metadata = decode_metadata(encoded)
        declared = self._types.get(message.topic)
        kind = visual_kind(array.type, metadata, declared)
        return DecodedMessage(message, array, metadata, declared, kind)


def _types_of_plugins(dataflow: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in node_kinds.names():
        for node in dataflow.get("nodes") or []:
            if name in node:
                with suppress(PluginError):  # the messages are displayed as they are
                    found = {**node_kinds.load(name).types(node), **found}
    return found
