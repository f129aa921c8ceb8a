"""Validation of messages from another machine before they reach a local consumer.

Consumers trust the content of shared memory: one bad offset in a string array would crash them.
Uses pyarrow, otherwise pure.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

from dora_node_api.data import arrow
from dora_node_api.data.metadata import decode_metadata
from dora_node_api.transport.shared.payload import Payload


def is_plain(parts: Payload) -> bool:
    """Return whether a message is an array of numbers without nulls, of the stated length."""
    return (
        parts.layout == arrow.FLAT
        and not parts.null_count
        and plain_size(parts.descriptor, parts.length) == parts.nbytes
    )


def plain_size(descriptor: bytes, length: int) -> int:
    """Return the bytes of ``length`` numbers without nulls; -1 if the descriptor is another."""
    if not _PLAIN.size < len(descriptor) <= _MAX_PLAIN:
        return -1
    width, size = _plain_numbers(descriptor)
    return size if width * length == size else -1


@lru_cache(maxsize=256)
def _plain_numbers(descriptor: bytes) -> tuple[int, int]:
    """Return the width of a number and the size of the data area; a negative width if neither."""
    form, buffers, name_size, no_bitmap, _, start, size = _PLAIN.unpack_from(descriptor)
    name = descriptor[_PLAIN.size :]
    if form or buffers != 2 or no_bitmap != _NO_BUFFER or start or len(name) != name_size:
        return -1, -1
    return _WIDTHS.get(name, -1), size


_PLAIN = struct.Struct("=BBHQQQQ")
"""Head of a descriptor with two buffers, as in `dora_node_api.data.arrow`."""
_NO_BUFFER = (1 << 64) - 1
_WIDTHS = {
    **{f"{sign}int{bits}".encode(): bits >> 3 for sign in ("", "u") for bits in (8, 16, 32, 64)},
    b"halffloat": 2,
    b"float": 4,
    b"double": 8,
}
_MAX_PLAIN = _PLAIN.size + max(map(len, _WIDTHS))


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
