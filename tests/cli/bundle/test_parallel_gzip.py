"""Blocks compressed on all cores read back as one stream."""

from __future__ import annotations

import gzip
import io
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from dora_cli.bundle import parallel_gzip
from dora_cli.bundle.parallel_gzip import ParallelGzip


def packed(content: bytes, piece: int) -> bytes:
    target = io.BytesIO()
    with ParallelGzip(target, 3) as stream:
        for start in range(0, len(content), piece):
            stream.write(content[start : start + piece])
    return target.getvalue()


@pytest.mark.parametrize("size", [0, 1, 1000, 64_000, 1_000_001])
def test_blocks_are_read_back_in_order(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel_gzip, "BLOCK", 4096)
    content = random.Random(size).randbytes(size)
    assert gzip.decompress(packed(content, 512)) == content


def test_output_does_not_depend_on_the_number_of_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parallel_gzip, "BLOCK", 4096)
    content = b"dora " * 10_000
    first = packed(content, 512)
    monkeypatch.setattr(parallel_gzip, "ThreadPoolExecutor", lambda _: ThreadPoolExecutor(1))
    assert packed(content, 512) == first


def test_no_output_after_an_error() -> None:
    target = io.BytesIO()
    stream = ParallelGzip(target, 3)
    stream.write(b"half")
    stream.__exit__(ValueError, ValueError(), None)
    assert target.getvalue() == b""
