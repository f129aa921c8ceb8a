"""A message as the block that a node has sent, and records of queues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow

from dora_node_api.data.arrow import encode
from dora_node_api.transport.consumer.delivery import Delivery
from dora_node_api.transport.shared.layout import BLOCK_HEAD, RecordKind
from dora_node_api.transport.shared.specs import QueueSpec
from dora_testing.errors import FlowError

_NOWHERE = QueueSpec(0, "", "", "", "")


def make_block(data: Any, metadata: Mapping[str, Any] | None, wall_ns: int) -> bytes:
    """Encode a message as a node would; a list becomes an array. Raises FlowError."""
    try:
        payload = encode(pyarrow.array(data) if isinstance(data, list) else data, metadata)
    except (TypeError, ValueError) as error:
        raise FlowError(f"a source cannot send this: {error}") from None
    payload.timestamp_ns = wall_ns
    block = bytearray(payload.total)
    payload.write_into(block)
    return bytes(block)


class Opened(Delivery):
    """The message in a block, with its value and metadata."""

    __slots__ = ("block",)

    def __init__(self, block: bytes, sent_ns: int = 0, flags: int = 0) -> None:
        head = BLOCK_HEAD.unpack_from(block)
        super().__init__(_NOWHERE, RecordKind.DATA, 0, sent_ns, len(block), flags, head, block)
        self.block = block


class Queued(Opened):
    """A message in a queue; its value stays the block, which the node decodes."""

    __slots__ = ()

    @property
    def value(self) -> Any:
        return self


def lifecycle(kind: RecordKind, error: str = "") -> Delivery:
    """Return a record of another kind than a message."""
    return Delivery(_NOWHERE, kind, 0, 0, 0, 0, error=error)
