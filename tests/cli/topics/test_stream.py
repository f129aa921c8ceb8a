"""Dropped messages are counted and reported every few seconds."""

from __future__ import annotations

import pytest

from dora_cli.topics.stream import DROPS_EVERY, DropCounter


def test_drops_are_reported_every_few_seconds_as_sums(capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    drops = DropCounter(lambda: now)
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
    drops.report()
    assert capsys.readouterr().err == ""
