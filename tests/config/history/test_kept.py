"""The bounded list of events."""

from __future__ import annotations

from hypothesis import given, strategies as st
from support.runner.histories import node_ended

from dora_config.history.entries import decode_entry, encode_entry
from dora_config.history.kept import KeptEvents, split_dropped


@given(st.integers(0, 40), st.integers(0, 8), st.integers(1, 8))
def test_the_first_and_the_last_events_are_kept(count: int, first: int, last: int) -> None:
    entries = [node_ended(float(number), "a") for number in range(count)]
    kept = KeptEvents(entries, first=first, last=last)
    expected = entries if count <= first + last else [*entries[:first], *entries[-last:]]
    assert list(kept.entries()) == expected
    assert kept.dropped == count - len(expected)


@given(st.integers(0, 40), st.integers(0, 8), st.integers(1, 8))
def test_the_number_of_dropped_events_is_saved(count: int, first: int, last: int) -> None:
    entries = [node_ended(float(number), "a") for number in range(count)]
    kept = KeptEvents(entries, first=first, last=last)
    lines = [encode_entry(entry) for entry in kept.saved()]
    saved = [entry for line in lines if (entry := decode_entry(line)) is not None]
    again = KeptEvents(saved, first=first, last=last)
    assert (again.entries(), again.dropped) == (kept.entries(), kept.dropped)
    assert split_dropped(saved) == (kept.entries(), kept.dropped)
