"""Timers of the state machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dora_daemon.runner.machine.commands import ArmTimer
from dora_daemon.runner.machine.events import StateEvent, TimerFired, TimerName
from dora_daemon.runner.nodes.queues import QueueRegistry


class Timers:
    """Emits TimerFired; for ``finish`` with whether the node still processes its inputs."""

    def __init__(self, registry: QueueRegistry, emit: Callable[[StateEvent], None]) -> None:
        self._registry = registry
        self._emit = emit
        self._handles: dict[tuple[str | None, TimerName], asyncio.TimerHandle] = {}
        self._received: dict[str, int] = {}
        """By node: messages received when its ``finish`` timer was armed."""
        self._loop = asyncio.get_running_loop()

    def arm(self, command: ArmTimer) -> None:
        """Arm or move a timer."""
        node, timer = command.node, command.timer
        if node is not None and timer == "finish":
            self._received[node] = self._registry.received(node)
        self.cancel(node, timer)
        self._handles[node, timer] = self._loop.call_at(command.at, self._fire, node, timer)

    def cancel(self, node: str | None, timer: TimerName) -> None:
        if (handle := self._handles.pop((node, timer), None)) is not None:
            handle.cancel()

    def _fire(self, node: str | None, timer: TimerName) -> None:
        del self._handles[node, timer]
        busy = False
        if node is not None and timer == "finish":
            received = self._registry.received(node)
            busy = self._registry.queued(node) > 0 and received != self._received.get(node)
        self._emit(TimerFired(node, timer, busy))

    def close(self) -> None:
        for handle in self._handles.values():
            handle.cancel()
        self._handles.clear()
