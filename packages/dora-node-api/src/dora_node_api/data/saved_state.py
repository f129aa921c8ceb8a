"""State that a process leaves to the node's next one: bytes or an Arrow array, in memory files."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from dora_node_api.errors import InvalidData

BYTES = "bytes"
ARROW = "arrow"
"""The two formats: plain bytes, and an Arrow IPC stream of one column."""


def write_state(state: Any) -> tuple[int, str, int]:
    """Return descriptor, format and size in bytes of a memory file with the state.

    `state`: bytes or any buffer, or a pyarrow array. Raises InvalidData for another type, OSError
    if memory runs out. The caller closes the descriptor.
    """
    form, data = _encoded(state)
    descriptor = os.memfd_create("dora-state", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, form, len(data)


def read_state(descriptor: int, form: str, size: int) -> Any:
    """Return the state in a memory file, as bytes or as a pyarrow array.

    Raises InvalidData if the file does not have this format and size.
    """
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        data = file.read()
    if len(data) != size:
        raise InvalidData(f"the saved state has {len(data)} bytes, expected {size}")
    if form == BYTES:
        return data
    if form != ARROW:
        raise InvalidData(f'the saved state has the unknown format "{form}"')
    import pyarrow

    try:
        with pyarrow.ipc.open_stream(data) as reader:
            return reader.read_next_batch().column(0)
    except (pyarrow.ArrowException, StopIteration, IndexError) as error:
        raise InvalidData(f"the saved state cannot be decoded: {error}") from error


def _encoded(state: Any) -> tuple[str, memoryview]:
    with suppress(TypeError):
        return BYTES, memoryview(state).cast("B")
    import pyarrow

    if isinstance(state, pyarrow.Array):
        sink = pyarrow.BufferOutputStream()
        batch = pyarrow.record_batch([state], names=["state"])
        with pyarrow.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        return ARROW, memoryview(sink.getvalue())
    kind = type(state).__name__
    raise InvalidData(f"a state must be bytes, another buffer or a pyarrow array, not {kind}")
