"""Passes events to the state machine one at a time and executes its commands in order."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable

import anyio

from dora_config.protocol.runner_events import DATAFLOW_ENDED
from dora_daemon.runner.errors import PartEnds
from dora_daemon.runner.machine.commands import Command
from dora_daemon.runner.machine.events import StateEvent
from dora_daemon.runner.machine.state import RunnerMachine


class Dispatcher:
    """Owner of the state machine and its clock."""

    def __init__(
        self, state: RunnerMachine, execute: Callable[[Command], None], changed: Callable[[], None]
    ) -> None:
        """``changed`` is called after every event and notification."""
        self.state = state
        self._execute = execute
        self._changed = changed
        self._inbox: deque[StateEvent] = deque()
        self._busy = False
        self._change = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def emit(self, event: StateEvent) -> None:
        """Process an event now, or after the one that is being processed."""
        self._inbox.append(event)
        if self._busy:
            return
        self._busy = True
        try:
            while self._inbox:
                for command in self.state.handle(self._inbox.popleft(), self.now()):
                    self._execute(command)
        finally:
            self._busy = False
        self.notify()

    def notify(self) -> None:
        """Wake the tasks that wait for a condition, and report the state if it has changed."""
        self._changed()
        self._change.set()
        self._change = asyncio.Event()

    async def until(self, condition: Callable[[], bool], poll: float = math.inf) -> None:
        """Wait until a condition holds; it is checked after every event and notification.

        ``poll``: seconds after which it is checked in any case. Raises PartEnds if the
        dataflow ends first.
        """
        while not condition():
            if self.state.phase == "finished":
                raise PartEnds(DATAFLOW_ENDED)
            with anyio.move_on_after(poll):
                await self._change.wait()

    def now(self) -> float:
        """Return the time of the state machine's clock in seconds."""
        return self._loop.time()
