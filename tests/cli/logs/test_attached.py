"""The attached view of `dora start`: failures of its requests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest

from dora_cli.coordinator.client import CoordinatorClient
from dora_cli.coordinator.errors import RequestFailed
from dora_cli.logs.attached import follow
from dora_config.protocol import control

ENDED = control.Ended(dataflows=(control.EndedDataflow(uuid="d1", name=None, ok=True, nodes=()),))


class FakeClient:
    """A client whose requests are numbered from 1: wait, logs, stop."""

    def __init__(self, *frames: control.Answer | control.Failure | type[KeyboardInterrupt]) -> None:
        self._frames = list(frames)
        self.sent: list[control.ControlRequest] = []
        self.streams = self

    def send(self, request: control.ControlRequest) -> int:
        self.sent.append(request)
        return len(self.sent)

    def frames(self) -> Iterator[control.Answer | control.Failure]:
        while self._frames:
            frame = self._frames.pop(0)
            if isinstance(frame, type):
                raise frame
            yield frame


def followed(*frames: control.Answer | control.Failure | type[KeyboardInterrupt]) -> bool:
    return follow(cast(CoordinatorClient, FakeClient(*frames)), "d1")


@pytest.mark.parametrize("number", [1, 3])
def test_a_refused_wait_or_stop_ends_the_command(number: int) -> None:
    refusal = control.Failure(id=number, message="the disk is full; make room")
    with pytest.raises(RequestFailed, match="make room"):
        followed(KeyboardInterrupt, refusal)


def test_a_stop_of_what_has_ended_is_not_an_error() -> None:
    ended = control.Answer(id=1, answer=ENDED)
    refusal = control.Failure(id=3, message="it has ended already")
    logs = control.Answer(id=2, answer=control.LogsEnd())
    assert followed(KeyboardInterrupt, ended, refusal, logs)
