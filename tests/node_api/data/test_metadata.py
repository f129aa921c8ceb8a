"""Metadata as bytes and back."""

from __future__ import annotations

from typing import Any

import pytest

from dora_node_api.data.metadata import decode_metadata, encode_metadata

TOO_LARGE = 1 << 63


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1, TOO_LARGE - 1, -TOO_LARGE], [1, TOO_LARGE - 1, -TOO_LARGE]),
        ((1, 0.5), [1.0, 0.5]),
        (["a", "b"], ["a", "b"]),
    ],
)
def test_lists_of_one_kind_arrive(value: Any, expected: Any) -> None:
    warnings: list[str] = []
    encoded = encode_metadata({"a": value}, on_warning=warnings.append)
    assert decode_metadata(encoded) == {"a": expected}
    assert not warnings


@pytest.mark.parametrize(
    "value", [TOO_LARGE, [TOO_LARGE, 1], [-TOO_LARGE - 1], [TOO_LARGE, 0.5], ["a", 1]]
)
def test_other_values_arrive_as_text_with_a_warning(value: Any) -> None:
    warnings: list[str] = []
    encoded = encode_metadata({"a": value}, on_warning=warnings.append)
    assert decode_metadata(encoded) == {"a": str(value)}
    assert len(warnings) == 1
