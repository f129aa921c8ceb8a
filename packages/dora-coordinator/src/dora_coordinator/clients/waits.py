"""Requests that wait until dataflows reach a phase; pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from dora_config.protocol.control import EndedDataflow
from dora_coordinator.state.events import ClientRequested


@dataclass(slots=True)
class Wait:
    """A request that is answered once its dataflows have reached ``until``."""

    asked: ClientRequested
    until: Literal["started", "ended", "restarted"]
    left: set[str]
    """Dataflows that have not reached it."""
    ended: list[EndedDataflow] = field(default_factory=list)
    old: str = ""
    """For a restart: the dataflow that was stopped."""


class Waits:
    """Waiting requests by dataflow."""

    def __init__(self) -> None:
        self._by_dataflow: dict[str, list[Wait]] = {}

    def add(self, wait: Wait) -> None:
        for dataflow_id in wait.left:
            self._by_dataflow.setdefault(dataflow_id, []).append(wait)

    def of(self, dataflow_id: str) -> list[Wait]:
        return list(self._by_dataflow.get(dataflow_id, ()))

    def remove(self, wait: Wait, dataflow_id: str) -> None:
        """The dataflow has reached what the request waits for."""
        wait.left.discard(dataflow_id)
        waits = self._by_dataflow[dataflow_id]
        waits.remove(wait)
        if not waits:
            del self._by_dataflow[dataflow_id]

    def drop(self, client: int, number: int | None) -> None:
        """Forget one request of a client (None: all of them).

        Restarts are completed without their client: the stopped dataflow is started again.
        """
        for waits in list(self._by_dataflow.values()):
            for wait in list(waits):
                if number is None:
                    unwanted = wait.until != "restarted"
                else:
                    unwanted = wait.asked.number == number
                if wait.asked.client == client and unwanted:
                    for dataflow_id in list(wait.left):
                        self.remove(wait, dataflow_id)
