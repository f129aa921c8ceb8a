"""When a player sends what was recorded."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from recordings.export.recorded_messages import message

from dora_recordings.player import Player

SECOND = 1_000_000_000


class FakeNode:
    """Takes outputs; `events` are received before the next one."""

    def __init__(self, *events: str) -> None:
        self.sent: list[tuple[str, Any, dict[str, Any]]] = []
        self.waited: list[float] = []
        self._events = list(events)

    def next(self, timeout: float) -> dict[str, str] | None:
        self.waited.append(timeout)
        return {"type": self._events.pop(0)} if self._events else None

    def send_output(self, output: str, array: pa.Array, metadata: dict[str, Any]) -> None:
        self.sent.append((output, array.to_pylist(), metadata))


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)


def test_the_speed_divides_the_recorded_times() -> None:
    node = FakeNode()
    player = Player(node, 2.0)  # type: ignore[arg-type]
    one = message("camera/image", [1], {"n": 1}, at=5 * SECOND)
    assert player.play(one, 4 * SECOND)
    player.begin_again(3 * SECOND)
    assert player.play(one, 4 * SECOND)
    assert node.waited == [0.5, 2.0]
    assert node.sent == [("image", [1], {"n": 1})] * 2


def test_at_speed_0_a_player_never_waits() -> None:
    node = FakeNode()
    player = Player(node, 0.0)  # type: ignore[arg-type]
    player.begin_again(3 * SECOND)
    assert player.play(message("camera/image", [1], at=5 * SECOND), 4 * SECOND)
    assert node.waited == [0.0]


def test_a_stop_ends_the_replay() -> None:
    node = FakeNode("INPUT_CLOSED", "STOP")
    player = Player(node, 1.0)  # type: ignore[arg-type]
    assert not player.play(message("camera/image", [1], at=5 * SECOND), 4 * SECOND)
    assert node.sent == []


@pytest.mark.parametrize(
    ("stamp", "moved"),
    [
        (4 * SECOND, 999 * SECOND),
        (4.0, 999.0),
        (datetime.fromtimestamp(4, UTC), datetime.fromtimestamp(999, UTC)),
        (0, 0),
        ("4", "4"),
    ],
)
def test_a_capture_is_as_old_as_when_it_was_recorded(
    stamp: object, moved: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1000 * SECOND)
    node = FakeNode()
    player = Player(node, 1.0)  # type: ignore[arg-type]
    assert player.play(message("camera/image", [1], {"stamp": stamp}, at=5 * SECOND), 5 * SECOND)
    assert node.sent == [("image", [1], {"stamp": moved})]
