"""Dumped YAML is read back equal."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings, strategies as st

from dora_config.yaml.reader import read_document
from dora_config.yaml.writer import dump_yaml

plain_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.text(max_size=15),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3)
    ),
    max_leaves=10,
)


@given(plain_values)
@settings(max_examples=200)
def test_dumped_values_are_read_equal(value: Any) -> None:
    document = read_document(dump_yaml({"value": value}), "f")
    assert document.problems == []
    assert document.data == {"value": value}


@given(st.floats(allow_nan=False))
def test_dumped_floats_are_read_equal(value: float) -> None:
    assert read_document(dump_yaml([value]), "f").data == [value]
