"""Rates are shown as table rows and as JSON."""

from __future__ import annotations

from dora_cli.topics.rates import COLUMNS, as_cells, as_json, page
from dora_config.protocol.topics import TopicRate


def test_missing_rates_are_dashes_or_null() -> None:
    none = TopicRate(name="a/x", messages=1)
    assert as_cells(none) == ["a/x", "-", "-", "-", "-", "-", 1]
    assert as_json(none)["avg_hz"] is None
    full = TopicRate(
        name="a/x", messages=9, average=0.02, minimum=0.01, maximum=0.03, deviation=0.001
    )
    assert as_cells(full) == ["a/x", "50.00", "20.00", "10.00", "30.00", "1.00", 9]
    assert as_json(full) == {
        "name": "a/x",
        "messages": 9,
        "avg_hz": 50.0,
        "avg_ms": 20.0,
        "min_ms": 10.0,
        "max_ms": 30.0,
        "std_ms": 1.0,
    }
    assert len(page([none, full])[2].split()) >= len(COLUMNS)
