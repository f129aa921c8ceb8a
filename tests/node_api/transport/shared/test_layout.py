"""Records, tags, areas and histogram buckets."""

from __future__ import annotations

import itertools

from hypothesis import given, strategies as st

from dora_node_api.transport.shared import layout


@given(st.integers(0, 0xFFFF), st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**32 - 1))
def test_tags_come_back(slot: int, generation: int, kind: int, flags: int) -> None:
    tags = layout.pack_tags(slot, generation, kind, flags)
    assert layout.unpack_tags(tags) == (slot, generation, kind, flags)
    assert tags < 1 << 64


@given(st.integers(0, 2**45))
def test_a_latency_lies_in_its_bucket(nanoseconds: int) -> None:
    index = layout.latency_bucket(nanoseconds)
    assert 0 <= index < layout.HISTOGRAM_BUCKETS
    assert layout.bucket_start(index) <= nanoseconds
    if index < layout.HISTOGRAM_BUCKETS - 1:
        assert nanoseconds < layout.bucket_start(index + 1)


def test_buckets_are_no_wider_than_a_quarter_and_the_clock_may_step_back() -> None:
    starts = [layout.bucket_start(index) for index in range(layout.HISTOGRAM_BUCKETS)]
    assert starts == sorted(set(starts))
    assert all((b - a) <= a / 4 for a, b in itertools.pairwise(starts[5:]))
    assert layout.latency_bucket(-5) == 0


def test_words_do_not_overlap() -> None:
    words = [
        value
        for name, value in vars(layout).items()
        if name.startswith(("P_", "C_", "F_", "X_")) and isinstance(value, int)
    ]
    assert len(words) == len(set(words))
    assert max(words) < layout.EDGE_WORDS
    of_consumer = [word for word in words if word < layout.P_SENT]
    assert max(of_consumer) < layout.HISTOGRAM
    assert layout.HISTOGRAM + layout.HISTOGRAM_BUCKETS <= layout.CONSUMER_WORDS == layout.P_SENT
    assert layout.RECORD.size == layout.RECORD_SIZE
    assert layout.BLOCK_HEAD.size <= layout.BLOCK_HEAD_SIZE


def test_every_queue_has_slots_for_waiting_and_held_messages() -> None:
    for bound in (1, 10, 1000, layout.MAX_BOUND):
        slots = layout.ledger_slots_for(bound)
        assert slots >= 2 * bound
        assert slots < layout.NO_SLOT
        assert slots % 8 == 0
        journal = layout.journal_size(bound)
        sizes = [layout.consumer_size(slots, journal), layout.producer_size(slots)]
        assert [size % layout.PAGE for size in sizes] == [0, 0]
        assert sizes[0] >= 8 * layout.CONSUMER_WORDS + slots + journal
        assert sizes[1] >= layout.ASSIGNED + slots


@given(head=st.integers(64, 20_000), nbytes=st.integers(0, 1 << 40))
def test_data_begins_behind_its_head_large_data_at_a_page(head: int, nbytes: int) -> None:
    begin = layout.data_offset(head, nbytes)
    alignment = layout.PAGE if nbytes >= layout.PAGED else layout.ALIGNMENT
    assert head <= begin < head + alignment
    assert begin % alignment == 0
