"""Validation of messages from another machine before they reach a local consumer.

Consumers trust the content of shared memory: one bad offset in a string array would crash them.
Uses pyarrow, otherwise pure.
"""

from __future__ import annotations

from typing import Any

from dora_node_api.data import arrow
from dora_node_api.data.metadata import decode_metadata
from dora_node_api.transport.shared.payload import Payload


def is_plain(parts: Payload) -> bool:
    """Return whether a message is an array of numbers without nulls, of the stated length."""
    return (
        parts.layout == arrow.FLAT
        and not parts.null_count
        and arrow.plain_size(parts.descriptor, parts.length) == parts.nbytes
    )


def problem_with(parts: Payload, data: Any) -> str | None:
    """Return why a message must be dropped; None if it is valid. ``data``: its data area."""
    try:
        if parts.metadata:
            decode_metadata(parts.metadata)
        if is_plain(parts):
            return None
        return _arrow_problem(parts, data)
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        return f"invalid metadata: {type(error).__name__}: {error}"[:300]


def _arrow_problem(parts: Payload, data: Any) -> str | None:
    import pyarrow

    try:
        buffer = pyarrow.py_buffer(data) if parts.nbytes else pyarrow.py_buffer(b"")
        arrow.decode(
            parts.descriptor, parts.layout, parts.length, parts.null_count, buffer, validate=True
        )
    except (
        *(ValueError, TypeError, LookupError, OSError, NotImplementedError, OverflowError),
        *(MemoryError, RecursionError, AttributeError),
        pyarrow.ArrowException,
    ) as error:
        return f"{type(error).__name__}: {error}"[:300]
    return None
