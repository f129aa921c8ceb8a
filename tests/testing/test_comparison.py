"""The first field of two messages that differs."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from dora_testing.comparison import Mismatch, Tolerance, differing

EXACT = Tolerance()


def differ(
    recorded: Any, found: Any, tolerance: Tolerance = EXACT, **metadata: tuple[Any, Any]
) -> Mismatch | None:
    ours = {key: values[0] for key, values in metadata.items() if values[0] is not None}
    theirs = {key: values[1] for key, values in metadata.items() if values[1] is not None}
    return differing((pa.array(recorded), ours), (pa.array(found), theirs), tolerance)


def test_equal_messages() -> None:
    assert differ([1, 2], [1, 2], stamp=(3, 3)) is None
    assert differ([1.0, float("nan")], [1.0, float("nan")]) is None
    assert differ([{"a": float("nan")}], [{"a": float("nan")}]) is None


@pytest.mark.parametrize(
    ("recorded", "found", "path"),
    [
        ([1.0, 2.0], [1.0, 2.001], "value[1]"),
        ([1, 2], [1, 3], "value[1]"),
        ([1], [1.0], "type of value"),
        ([1, 2], [1], "length of value"),
        (["a"], ["b"], "value[0]"),
        ([None, 1], [0, 1], "value[0]"),
        ([{"pose": {"x": [1, 2]}}], [{"pose": {"x": [1, 3]}}], "value[0].pose.x[1]"),
    ],
)
def test_path_of_a_difference(recorded: Any, found: Any, path: str) -> None:
    mismatch = differ(recorded, found)
    assert mismatch is not None
    assert mismatch.path == path


def test_metadata() -> None:
    assert differ([1], [1], stamp=(1, 2)) == Mismatch("metadata.stamp", "1", "2")
    assert differ([1], [1], stamp=(1, None)) == Mismatch("metadata.stamp", "1", "missing")
    assert differ([1], [1], stamp=(None, 1)) == Mismatch("metadata.stamp", "missing", "1")


def test_tolerances() -> None:
    assert differ([1.0], [1.001], Tolerance(atol=0.01)) is None
    assert differ([100.0], [100.1], Tolerance(rtol=0.01)) is None
    assert differ([{"x": 1.0}], [{"x": 1.001}], Tolerance(atol=0.01)) is None
    assert differ([1.0], [1.1], Tolerance(atol=0.01)) is not None
    assert differ([True], [False], Tolerance(atol=2)) is not None


@pytest.mark.parametrize("name", ["stamp", "metadata.stamp"])
def test_ignored_fields(name: str) -> None:
    tolerance = Tolerance(ignore=frozenset([name]))
    assert differ([1], [1], tolerance, stamp=(1, 2)) is None
    assert differ([1], [1], tolerance, stamp=(1, None)) is None
    assert differ([1], [2], tolerance) is not None


def test_ignored_field_of_a_value() -> None:
    tolerance = Tolerance(ignore=frozenset(["value.pose.x"]))
    recorded, found = [{"pose": {"x": 1, "y": 2}}], [{"pose": {"x": 9, "y": 2}}]
    assert differ(recorded, found, tolerance) is None
    assert differ(recorded, [{"pose": {"x": 9, "y": 3}}], tolerance) is not None
