"""Times that Python's types cannot represent."""

from __future__ import annotations

from datetime import date

import pyarrow as pa
import pytest

from dora_node_api.data.python_values import python_values

NANOSECOND = pa.array([1, None, 1000], pa.timestamp("ns"))
FAR = pa.array([2**62], pa.timestamp("s"))


def test_values_are_those_of_pyarrow() -> None:
    assert python_values(pa.array([1.5, None])) == [1.5, None]
    assert python_values(pa.array([0], pa.date32())) == [date(1970, 1, 1)]


def test_other_times_are_text() -> None:
    first, missing, second = python_values(NANOSECOND)
    assert (first, missing) == ("1970-01-01 00:00:00.000000001", None)
    assert str(second).startswith("1970-01-01 00:00:00.000001")
    assert python_values(FAR) == [f"<value out of range: {2**62}>"]
    assert python_values(pa.array([2**62], pa.duration("s"))) == [str(2**62)]


def test_times_in_structs_and_lists() -> None:
    stamps = pa.ListArray.from_arrays([0, 1], NANOSECOND)
    structs = pa.StructArray.from_arrays([stamps, pa.array([2])], ["stamps", "count"])
    assert python_values(structs) == [{"stamps": ["1970-01-01 00:00:00.000000001"], "count": 2}]


def test_an_unknown_timezone_is_an_error_of_the_value() -> None:
    with pytest.raises(ValueError, match="Mars"):
        python_values(pa.array([1], pa.timestamp("us", tz="Mars/Olympus")))
