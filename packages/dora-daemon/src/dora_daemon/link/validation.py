"""Content from another machine is checked in full before any local consumer sees it.

Local consumers trust what lies in their segments: a string array with one bad offset would end
their process. Pure but for pyarrow.
"""

from __future__ import annotations

from typing import Any

from dora_node_api import arrow
from dora_node_api.metadata import decode_metadata
from dora_node_api.transport.parts import Parts


def problem_with(parts: Parts, data: Any) -> str | None:
    """Why a message must not be handed on; None when all is well. ``data``: its data area."""
    import pyarrow

    try:
        if parts.metadata:
            decode_metadata(parts.metadata)
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
