"""Payloads of changing random bytes, settings and results of the benchmark nodes."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa

VARIANTS = 3
STAMP = struct.Struct("<Q")


def setting(name: str) -> str:
    """Return the setting `name` that the measurement put into this node's environment."""
    return os.environ[f"BENCH_{name}"]


def write_result(result: dict[str, Any]) -> None:
    """Write the result file of this node."""
    Path(setting("RESULT")).write_text(json.dumps(result))


def write_started() -> None:
    """Note that this node has sent its first messages."""
    Path(setting("RESULT")).with_suffix(".started").touch()


class Payloads:
    """Arrays of `size` random bytes used in turn: an all-zero page would flatter every copy."""

    def __init__(self, size: int) -> None:
        self._buffers = [bytearray(os.urandom(size)) for _ in range(VARIANTS)]
        self._arrays = [
            pa.UInt8Array.from_buffers(pa.uint8(), size, [None, pa.py_buffer(buffer)])
            for buffer in self._buffers
        ]

    def stamped(self, number: int) -> pa.Array:
        """Return the next array, with `number` in its first eight bytes."""
        STAMP.pack_into(self._buffers[number % VARIANTS], 0, number)
        return self._arrays[number % VARIANTS]

    def is_stamped(self, array: pa.Array, number: int) -> bool:
        """Return whether `array` equals `stamped(number)`, by its first and last bytes."""
        sent = self._buffers[number % VARIANTS]
        received = memoryview(array.buffers()[1])[array.offset : array.offset + len(array)]
        ends = bytes(received[:8]), bytes(received[-8:])
        return len(received) == len(sent) and ends == (bytes(sent[:8]), bytes(sent[-8:]))
