"""Reads messages from a control socket, at both ends of it."""

from __future__ import annotations

import asyncio

from dora_config.protocol.runner import (
    MAX_LINE,
    Envelope,
    RunnerProtocolError,
    UnknownMessage,
    decode_line,
)


async def read_message(reader: asyncio.StreamReader) -> Envelope | UnknownMessage | None:
    """Return the next message; None at the end. Raises RunnerProtocolError and OSError.

    The limit of the reader is `MAX_LINE`.
    """
    try:
        line = await reader.readline()
    except ValueError as error:  # of asyncio, for a line above the limit
        raise RunnerProtocolError(
            f"message exceeds {MAX_LINE} bytes; closing the connection"
        ) from error
    return decode_line(line) if line.endswith(b"\n") else None
