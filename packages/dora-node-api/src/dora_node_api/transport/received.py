"""One message over a segment, and when its memory is given back."""

from __future__ import annotations

from typing import Any

from dora_node_api.transport.layout import RecordKind


class Delivery:
    """One record handed out. The array and every view of it keep the shared memory alive."""

    kind: RecordKind
    sequence: int
    protected: bool
    sent_ns: int
    """CLOCK_MONOTONIC of the send."""
    timestamp_ns: int
    """CLOCK_REALTIME of the send, nanoseconds; 0 for lifecycle records."""
    nbytes: int
    """Of the block in use."""

    @property
    def value(self) -> Any:
        """The pyarrow array, backed by shared memory; decoded on first use.

        Raises BrokenRecord when it cannot be decoded.
        """
        raise NotImplementedError

    @property
    def metadata(self) -> dict[str, Any]:
        """The sender's metadata with `timestamp` (aware UTC datetime) unless the sender set one."""
        raise NotImplementedError

    @property
    def error(self) -> str:
        """Of NODE_FAILED: what the runner says."""
        raise NotImplementedError
