"""Suggestions for misspelt names."""

from __future__ import annotations

import pytest

from dora_config.yaml.suggest import closest, closest_name


@pytest.mark.parametrize(
    ("name", "found"),
    [("imgae", "image"), ("IMAGE", "image"), ("queue-size", "queue_size"), ("xyz", None)],
)
def test_closest_name(name: str, found: str | None) -> None:
    assert closest_name(name, ["image", "queue_size"]) == found


def test_closest_is_part_of_a_message() -> None:
    assert closest("imgae", ["image"]) == '; did you mean "image"?'
    assert closest("xyz", ["image"]) == ""
