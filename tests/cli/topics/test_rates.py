"""Rates are shown as table rows and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import cast

import pytest

from dora_cli.coordinator.client import CoordinatorClient
from dora_cli.errors import CommandFailed
from dora_cli.topics import stream
from dora_cli.topics.stream import COLUMNS, as_cells, as_json, page
from dora_config.protocol.control import WatchTopics
from dora_config.protocol.topics import TopicRate, TopicUpdate


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


def show(
    monkeypatch: pytest.MonkeyPatch,
    *updates: TopicUpdate,
    duration: float | None = None,
    error: Exception | None = None,
) -> None:
    """Show updates of a coordinator; ``error`` follows them."""

    def watch(*_: object, tick: float) -> Iterator[TopicUpdate]:
        yield from updates
        if error is not None:
            raise error

    monkeypatch.setattr(stream, "watch", watch)
    request = WatchTopics(rates=True)
    stream.show_rates(cast(CoordinatorClient, None), request, duration, "json")


@pytest.mark.parametrize("duration", [None, 5.0])
def test_the_rates_since_the_last_report_are_printed_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], duration: float | None
) -> None:
    first, second = (TopicUpdate(rates=(TopicRate(name="a/x", messages=n),)) for n in (1, 2))
    show(monkeypatch, first, second, duration=duration)
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["messages"] == 2


def test_rates_are_printed_before_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    update = TopicUpdate(rates=(TopicRate(name="a/x", messages=7),))
    with pytest.raises(CommandFailed):
        show(monkeypatch, update, error=CommandFailed())
    assert json.loads(capsys.readouterr().out)["messages"] == 7
    with pytest.raises(CommandFailed):
        show(monkeypatch, error=CommandFailed())
    assert capsys.readouterr().out == ""
