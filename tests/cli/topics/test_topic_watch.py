"""What is said beside the messages of `dora topic echo`, and how `hz` shows its figures."""

from __future__ import annotations

import json

import pytest

from dora_cli.commands.topic import _row
from dora_cli.topics.topic_rates import COLUMNS, as_cells, as_json, page
from dora_cli.topics.topic_watch import DROPS_EVERY, Drops
from dora_config.protocol.topics import TopicRate


def test_drops_are_told_now_and_then_with_their_sum(capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    drops = Drops(lambda: now)
    drops.add({})
    assert capsys.readouterr().err == ""
    drops.add({"a/x": 1})
    assert "not shown: 1 of a/x" in capsys.readouterr().err
    drops.add({"a/x": 2})
    drops.add({"a/x": 3, "b/y": 1})
    assert capsys.readouterr().err == ""
    now += DROPS_EVERY
    drops.add({})
    assert "not shown: 5 of a/x, 1 of b/y" in capsys.readouterr().err
    drops.tell()
    assert capsys.readouterr().err == ""


def test_a_message_is_a_row_and_says_what_was_left_out() -> None:
    message = {"timestamp": 1, "name": "a/x", "data": ["ü", 1.5], "metadata": {"k": 1}}
    assert _row(json.dumps(message)) == 'a/x\t data=["ü",1.5] metadata={"k":1}'
    message["shortened"] = {"elements": 9, "type": "int8"}
    assert _row(json.dumps(message)).endswith(" (shortened: elements 9, type int8)")


def test_figures_that_there_are_not_are_dashes_or_null() -> None:
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
