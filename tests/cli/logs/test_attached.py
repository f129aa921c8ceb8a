"""The attached view of `dora start`: failures of its requests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest

from dora_cli.coordinator.client import CoordinatorClient
from dora_cli.coordinator.errors import RequestFailed
from dora_cli.coordinator.stream_socket import Frame
from dora_cli.logs.attached import follow
from dora_config.protocol import control

ENDED = control.Ended(dataflows=(control.EndedDataflow(uuid="d1", name=None, ok=True, nodes=()),))


class FakeClient:
    """A client whose requests are numbered from 1: wait, logs, stop."""

    def __init__(self, *frames: Frame | type[KeyboardInterrupt]) -> None:
        self._frames = list(frames)
        self.sent: list[control.ControlRequest] = []
        self.streams = self

    def send(self, request: control.ControlRequest) -> int:
        self.sent.append(request)
        return len(self.sent)

    def frames(self) -> Iterator[Frame]:
        while self._frames:
            frame = self._frames.pop(0)
            if isinstance(frame, type):
                raise frame
            yield frame


def followed(*frames: Frame | type[KeyboardInterrupt]) -> bool:
    return follow(cast(CoordinatorClient, FakeClient(*frames)), "d1")


@pytest.mark.parametrize("number", [1, 3])
def test_a_refused_wait_or_stop_ends_the_command(number: int) -> None:
    refusal = RequestFailed("the disk is full; make room", "failed")
    with pytest.raises(RequestFailed, match="make room"):
        followed(KeyboardInterrupt, (number, refusal))


def test_a_stop_of_what_has_ended_is_not_an_error() -> None:
    refusal = RequestFailed("it has ended already", "failed")
    assert followed(KeyboardInterrupt, (1, ENDED), (3, refusal), (2, control.LogsEnd()))
