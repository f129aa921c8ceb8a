"""Blocks: taken, given back, kept warm, returned to the system, never handed out twice."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import random

import pytest
from hypothesis import given, settings, strategies as st
from support.queues import free_bytes

from dora_node_api.transport.producer import pool as pool_module
from dora_node_api.transport.producer.pool import Pool, PoolBlock, default_pool_cap, size_class
from dora_node_api.transport.shared import limits


@given(st.integers(0, 1 << 34))
def test_a_size_class_holds_the_size_and_wastes_little(nbytes: int) -> None:
    size = size_class(nbytes)
    assert size >= nbytes
    assert size_class(size) == size
    assert size % 64 == 0
    if size > 4096:
        assert size % 4096 == 0
        assert size - nbytes < max(4096, nbytes / 8 + 1)


def take(pool: Pool, nbytes: int) -> PoolBlock:
    block = pool.take(nbytes)
    assert block is not None
    block.refs = 1
    return block


def give(pool: Pool, block: PoolBlock) -> None:
    block.refs = 0
    pool.give(block)


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.lists(st.integers(1, 300_000), min_size=5, max_size=60))
def test_blocks_never_overlap_and_everything_comes_back(seed: int, sizes: list[int]) -> None:
    chance = random.Random(seed)
    pool = Pool(4 << 20)
    live: list[tuple[PoolBlock, int]] = []
    for mark, size in enumerate(sizes):
        block = pool.take(size)
        if block is None:
            assert sum(b.size for b, _ in live) + size_class(size) > pool.cap_bytes
        else:
            block.refs = 1
            assert block.offset % 64 == 0
            block.view[:size] = bytes([mark % 251]) * size
            live.append((block, mark % 251))
        if live and chance.random() < 0.6:
            block, mark = live.pop(chance.randrange(len(live)))
            assert block.view[0] == mark
            give(pool, block)
        assert pool.reserved_bytes <= pool.cap_bytes
    spans = sorted((b.segment.number, b.offset, b.offset + b.size) for b, _ in live)
    assert all(a[0] < b[0] or a[2] <= b[1] for a, b in itertools.pairwise(spans))
    for block, mark in live:
        assert block.view[0] == mark
        give(pool, block)
    assert free_bytes(pool) == pool.reserved_bytes
    pool.close()


def test_the_block_used_last_is_used_again() -> None:
    pool = Pool(1 << 20)
    first, second = take(pool, 1000), take(pool, 1000)
    give(pool, first)
    give(pool, second)
    assert take(pool, 900) is second
    assert take(pool, 1000) is first
    pool.close()


def test_other_sizes_make_room_up_to_the_cap() -> None:
    pool = Pool(1 << 20)
    blocks = [take(pool, 100_000) for _ in range(9)]
    assert pool.take(500_000) is None
    for block in blocks:
        give(pool, block)
    big = take(pool, 500_000)
    assert pool.reserved_bytes <= pool.cap_bytes
    again = take(pool, 100_000)
    assert again in blocks
    give(pool, big)
    give(pool, again)
    assert pool.take(2 << 20) is None
    pool.close()


def test_small_blocks_end_at_the_cap() -> None:
    pool = Pool(1000)
    assert [pool.take(200) is not None for _ in range(4)] == [True, True, True, False]
    assert pool.reserved_bytes == 3 * 256
    pool.close()


def test_trim_returns_unneeded_memory() -> None:
    pool = Pool(64 << 20)
    blocks = [take(pool, 1 << 20) for _ in range(16)]
    for block in blocks:
        give(pool, block)
    pool.trim()
    before = pool.reserved_bytes
    for _ in range(10):
        give(pool, take(pool, 1 << 20))
        pool.trim()
    assert before >= 8 << 20
    assert pool.reserved_bytes <= 2 << 20
    stat = os.fstat(pool.segments[0].fd)
    assert stat.st_blocks * 512 <= 3 << 20
    pool.close()


def test_a_segment_is_registered_read_only_before_its_first_use_and_sealed() -> None:
    shown: list[tuple[int, int]] = []

    def register(number: int, fd: int, size: int) -> None:
        with pytest.raises(OSError, match=r"Bad file|denied"):
            os.write(fd, b"x")
        assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
        shown.append((number, size))

    pool = Pool(1 << 30, register)
    take(pool, 100)
    take(pool, 1000)
    assert shown == [(0, 64 << 20)]
    take(pool, 100 << 20)
    assert [number for number, _ in shown] == [0, 1]
    with pytest.raises(OSError, match="not permitted"):
        os.ftruncate(pool.segments[0].fd, 0)
    pool.close()


def test_a_number_is_not_used_twice_when_registering_fails() -> None:
    seen: list[int] = []

    def register(number: int, fd: int, size: int) -> None:
        seen.append(number)
        if len(seen) == 1:
            raise ConnectionError

    pool = Pool(1 << 20, register)
    with pytest.raises(ConnectionError):
        pool.take(100)
    assert pool.take(100) is not None
    assert seen == [0, 1]
    pool.close()


def test_no_memory_is_a_memory_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, offset: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    pool = Pool(1 << 20)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(MemoryError, match="No space left"):
        pool.take(100)
    monkeypatch.undo()
    assert pool.take(100) is not None
    pool.close()


def test_the_default_cap_is_a_part_of_the_memory() -> None:
    cap = default_pool_cap()
    assert cap >= 256 << 20
    assert cap == max(limits.usable_memory() // 4, 256 << 20)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES])
def test_a_segment_that_cannot_be_shown_to_readers_is_an_error_of_memory(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int) -> int:
        raise OSError(number, os.strerror(number))

    pool = Pool(4 << 20, lambda number, fd, size: None)
    with monkeypatch.context() as patched:
        patched.setattr(pool_module, "read_only_descriptor", refuse)
        with pytest.raises(MemoryError, match="does not grant"):
            pool.take(100)
    assert pool.take(100) is not None
    pool.close()
