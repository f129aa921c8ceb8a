"""The attachment of every message, request and reply of rmw_zenoh, and GIDs (pure)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import xxhash

from dora_ros2.errors import MalformedMessage

_LAYOUT = struct.Struct("<qqB16s")
_OLD_LAYOUT = struct.Struct("<16sq17sq11sB16s")
_OLD_NAMES = (b"\x0fsequence_number", b"\x10source_timestamp", b"\x0asource_gid")
OLD_ATTACHMENT = (
    "an attachment of rmw_zenoh 0.2.3 or older, which cannot read ours;"
    " update rmw_zenoh there to 0.2.4 or newer"
)


@dataclass(frozen=True)
class Attachment:
    """Number, time and sender of a message; `old`: as rmw_zenoh wrote it before April 2025."""

    sequence: int
    time_ns: int
    gid: bytes
    old: bool = False

    def encode(self) -> bytes:
        """Return the 33 bytes of today's form."""
        return _LAYOUT.pack(self.sequence, self.time_ns, len(self.gid), self.gid)


def decode_attachment(data: bytes) -> Attachment:
    """Read either form. Raises MalformedMessage."""
    if len(data) == _LAYOUT.size and data[16] == 16:
        sequence, time_ns, _, gid = _LAYOUT.unpack(data)
        return Attachment(sequence, time_ns, gid)
    if len(data) == _OLD_LAYOUT.size:
        first, sequence, second, time_ns, third, _, gid = _OLD_LAYOUT.unpack(data)
        if (first, second, third) == _OLD_NAMES:
            return Attachment(sequence, time_ns, gid, old=True)
    raise MalformedMessage(f"{len(data)} bytes are not an attachment of rmw_zenoh")


def gid(token: str) -> bytes:
    """Return the GID of the endpoint with this token: its XXH3-128, low half first."""
    return xxhash.xxh3_128_intdigest(token.encode()).to_bytes(16, "little")
