"""Compression of arrays of any type with lz4 and zstd."""

from __future__ import annotations

import pyarrow as pa

from dora_daemon.link.codecs.coded import NotDecoded


def compress(codec: str, level: int, data: memoryview) -> bytes:
    """Return the compressed bytes."""
    made: bytes = pa.Codec(codec, compression_level=level).compress(data, asbytes=True)
    return made


def decompress(codec: str, coded: memoryview, target: memoryview) -> None:
    """Fill the target. Raises NotDecoded if the bytes are not exactly its content."""
    try:
        with pa.CompressedInputStream(pa.BufferReader(pa.py_buffer(coded)), codec) as stream:
            if stream.readinto(target) != len(target) or stream.read(1):
                raise NotDecoded(f"they are not {len(target)} bytes of {codec}")
    except (OSError, ValueError) as error:
        raise NotDecoded(f"{codec}: {error}") from error
