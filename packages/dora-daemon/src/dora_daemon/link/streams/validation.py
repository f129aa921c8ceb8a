"""Validation of messages from another machine before they reach a local consumer.

Consumers trust the content of shared memory: one bad offset in a string array would crash them.
Uses pyarrow, otherwise pure.
"""

from __future__ import annotations

import struct
from typing import Any

from dora_node_api.data import arrow
from dora_node_api.data.metadata import decode_metadata
from dora_node_api.transport.shared.message_parts import Parts


def is_plain(parts: Parts) -> bool:
    """Return whether a message is an array of numbers without nulls, of the stated length."""
    descriptor = parts.descriptor
    if parts.layout != arrow.FLAT or len(descriptor) < _PLAIN.size:
        return False
    form, buffers, name_size, no_bitmap, _, start, size = _PLAIN.unpack_from(descriptor)
    return bool(
        form == 0
        and buffers == 2
        and no_bitmap == _NO_BUFFER
        and start == 0
        and len(descriptor) == _PLAIN.size + name_size
        and parts.null_count == 0
        and _WIDTHS.get(descriptor[_PLAIN.size :], -1) * parts.length == size == parts.nbytes
    )


_PLAIN = struct.Struct("=BBHQQQQ")
"""Head of a descriptor with two buffers, as in `dora_node_api.data.arrow`."""
_NO_BUFFER = (1 << 64) - 1
_WIDTHS = {
    **{f"{sign}int{bits}".encode(): bits >> 3 for sign in ("", "u") for bits in (8, 16, 32, 64)},
    b"halffloat": 2,
    b"float": 4,
    b"double": 8,
}


def problem_with(parts: Parts, data: Any) -> str | None:
    """Return why a message must be dropped; None if it is valid. ``data``: its data area."""
    try:
        if parts.metadata:
            decode_metadata(parts.metadata)
        if is_plain(parts):
            return None
        return _arrow_problem(parts, data)
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        return f"invalid metadata: {type(error).__name__}: {error}"[:300]


def _arrow_problem(parts: Parts, data: Any) -> str | None:
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
