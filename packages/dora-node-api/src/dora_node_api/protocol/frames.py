"""Frames on the control socket: messages to bytes and descriptors, and back; no I/O.

A frame is a 4-byte length of the body, a 2-byte number of file descriptors (both in network
order), and the body: one JSON object whose `kind` names the message. Descriptors travel as
SCM_RIGHTS beside the first bytes of the frame, at most `DESCRIPTORS_PER_PIECE` beside one byte,
because the kernel limits the number of descriptors in one call.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress

from dora_node_api.errors import ControlError
from dora_node_api.frozen import FrozenRecord
from dora_node_api.protocol.messages import Message, message_from_json, to_json

HEADER = struct.Struct("!IH")
# A Welcome carries the dataflow's descriptor, which may be long; a larger frame is malformed.
MAX_BODY = 64 * 1024 * 1024
# The kernel takes at most 253 descriptors in one call (SCM_MAX_FD).
DESCRIPTORS_PER_PIECE = 200


def without_surrogates(text: str) -> str:
    r"""Return JSON with "?" for each unpaired surrogate, such as ``\ud83d``.

    Raises ValueError, or RecursionError for deeply nested values.
    """
    if r"\u" not in text:
        return text
    return json.dumps(json.loads(text), ensure_ascii=False).encode("utf-8", "replace").decode()


class Piece(FrozenRecord):
    """Bytes to send in one call, and the descriptors that go beside their first byte."""

    data: bytes
    descriptors: tuple[int, ...] = ()


class ReceivedFrame(FrozenRecord):
    """A message and its descriptors, which the receiver must close."""

    message: Message
    descriptors: tuple[int, ...] = ()


def encode(message: Message, descriptors: Sequence[int] = ()) -> list[Piece]:
    """Return one message as pieces to send in order, each with descriptors in one `sendmsg`.

    If the kernel takes only part of a piece, the descriptors went with that part: send the rest
    without them. The caller still owns the descriptors and closes them after the last piece.
    """
    body = json.dumps(to_json(message), separators=(",", ":")).encode()
    if len(body) > MAX_BODY:
        kind = type(message).__name__
        raise ControlError(f"message {kind} has {len(body)} bytes; at most {MAX_BODY} fit")
    frame = HEADER.pack(len(body), len(descriptors)) + body
    pieces = []
    while len(descriptors) > DESCRIPTORS_PER_PIECE:
        pieces.append(Piece(frame[:1], tuple(descriptors[:DESCRIPTORS_PER_PIECE])))
        frame, descriptors = frame[1:], descriptors[DESCRIPTORS_PER_PIECE:]
    return [*pieces, Piece(frame, tuple(descriptors))]


def decode(body: bytes) -> Message:
    """Return the message in the body of a frame. Raises ControlError for anything else."""
    try:
        values = json.loads(without_surrogates(body.decode()))
    except (ValueError, RecursionError) as error:
        raise ControlError(f"not JSON: {body[:80]!r}") from error
    if not isinstance(values, dict) or not isinstance(values.get("kind"), str):
        raise ControlError(f"not a message: {body[:80]!r}")
    return message_from_json(values)


class FrameDecoder:
    """Incremental decoder: bytes and descriptors in, messages out.

    Feed it the result of each `recvmsg` and take messages until None. After a ControlError, close
    the connection.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._descriptors: list[int] = []

    def feed(self, data: bytes, descriptors: Iterable[int] = ()) -> None:
        """Append received bytes and the descriptors that came beside them."""
        self._data += data
        self._descriptors += descriptors

    def next_message(self) -> ReceivedFrame | None:
        """Return the next message, or None until more bytes come. Raises ControlError."""
        data = self._data
        if len(data) < HEADER.size:
            return None
        length, count = HEADER.unpack_from(data)
        if length > MAX_BODY:
            raise ControlError(
                f"a frame of {length} bytes (at most {MAX_BODY}) is not of the dora protocol"
            )
        end = HEADER.size + length
        if len(data) < end:
            return None
        if count > len(self._descriptors):
            raise ControlError(
                f"a frame needs {count} file descriptors but {len(self._descriptors)} came with it;"
                " this process may have reached its limit (ulimit -n)"
            )
        message = decode(bytes(data[HEADER.size : end]))
        received = ReceivedFrame(message, tuple(self._descriptors[:count]))
        del data[:end], self._descriptors[:count]
        return received

    def close(self) -> None:
        """Close descriptors that belong to no complete message."""
        close_all(self._descriptors)
        self._descriptors.clear()
        self._data.clear()


def close_all(descriptors: Iterable[int]) -> None:
    """Close descriptors, ignoring those that are closed already."""
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)
