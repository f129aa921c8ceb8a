"""State of the cluster once a second, for all open pages together."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import anyio

from dora_config.errors import DoraError
from dora_config.protocol.control import GetSnapshot, ListDataflows
from dora_config.protocol.snapshot import REUSED_SECONDS, Snapshot
from dora_ui.connection import CoordinatorConnection
from dora_ui.rows import state

PERIOD = REUSED_SECONDS + 0.05
"""Seconds between two reads of the state; the coordinator repeats a snapshot until then."""
ANSWER_SECONDS = 15.0
"""Limit for the answers of a coordinator."""
STALE_SECONDS = 3.0
"""Seconds without a page after which the known state is outdated."""
MAX_SHARE = 0.25
"""Largest share of the time for reads, so that a slow coordinator is read less often."""
MAX_PAUSE = 5.0
"""Longest time in seconds until the next read, also after a timeout."""
DETAILS = ("nodes", "edges")
"""Parts of the state that are sent for one dataflow only."""

State = Mapping[str, Any]
"""A JSON object without null, which means deletion in a patch."""


def difference(before: State, now: State) -> dict[str, Any]:
    """Return the patch that turns ``before`` into ``now``; empty if they are equal."""
    patch: dict[str, Any] = {key: None for key in before if key not in now}
    for key, value in now.items():
        old = before.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            inner = difference(old, value)
            if inner:
                patch[key] = inner
        elif key not in before or old != value:
            patch[key] = value
    return patch


@dataclass(frozen=True, slots=True)
class Version:
    """One state; ``number`` rises by one."""

    number: int
    state: State
    ahead: float | None = None
    """Offset in seconds of the clock of the state from the event loop's clock."""

    def scoped(self, dataflow: str | None) -> State:
        """Return the state for a page that shows the details of one dataflow, or of none."""
        details = {
            part: {
                name: rows for name, rows in self.state.get(part, {}).items() if name == dataflow
            }
            for part in DETAILS
        }
        return {**self.state, **details}


class Feed:
    """Reads the state while at least one page is visible."""

    def __init__(self, coordinator: CoordinatorConnection, *, read_only: bool) -> None:
        self._coordinator = coordinator
        self._read_only = read_only
        self._version: Version | None = None
        self._snapshot: Snapshot | None = None
        self._before: Snapshot | None = None
        """The snapshot before the last one. If both are None, rates are unknown."""
        self._ahead: float | None = None
        self._changed = anyio.Event()
        self._viewers = 0
        self._left: float | None = None
        """Time at which the last viewer left; None while there are viewers."""
        self._is_stale = False
        """Whether the state is from before a time without viewers."""
        self._wanted = anyio.Event()
        self._pause: anyio.CancelScope | None = None
        """Scope of the pause between two reads."""
        self._release = ""

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            await self._wanted.wait()
            begun = anyio.current_time()
            await self._read()
            spent = anyio.current_time() - begun
            pause = min(MAX_PAUSE, max(PERIOD, spent / MAX_SHARE - spent))
            with anyio.move_on_after(pause) as self._pause:
                await anyio.sleep_forever()

    def read_now(self) -> None:
        """End the time between two reads."""
        if self._pause is not None:
            self._pause.cancel()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        if self._left is not None and anyio.current_time() > self._left + STALE_SECONDS:
            self._is_stale = True
            # Rates must not be averages over the time without a page.
            self._snapshot = self._before = None
            self.read_now()
        self._left = None
        self._viewers += 1
        self._wanted.set()
        try:
            yield
        finally:
            self._viewers -= 1
            if not self._viewers:
                self._wanted = anyio.Event()
                self._left = anyio.current_time()

    async def versions(self) -> AsyncGenerator[Version]:
        """Yield the state and each later one; a slow reader skips some. Close it after use."""
        with self._watched():
            sent = -1
            while True:
                version = self._version
                if version is not None and version.number > sent and not self._is_stale:
                    sent = version.number
                    yield version
                else:
                    await self._changed.wait()

    async def _read(self) -> None:
        try:
            with anyio.fail_after(ANSWER_SECONDS):
                now = await self._state()
            self._publish(now)
            return
        except TimeoutError:
            problem = f"{self._coordinator.name} has not answered for {ANSWER_SECONDS:g} s"
            if not self._coordinator.is_local:
                problem += "; if its version is older than this command's, upgrade it"
        except DoraError as error:
            problem = str(error)
        self._snapshot = self._before = None
        known = {} if self._version is None else self._version.state
        self._publish({**known, "source": self._source(problem)})

    async def _state(self) -> State:
        dataflows = (await self._coordinator.request(ListDataflows())).dataflows
        snapshot = await self._coordinator.request(GetSnapshot())
        self._release = snapshot.release
        # Another client may have requested the same snapshot.
        if self._snapshot is None or self._snapshot.time != snapshot.time:
            self._before, self._snapshot = self._snapshot, snapshot
            self._ahead = snapshot.time - anyio.current_time()
        return state(self._source(None), dataflows, snapshot, self._before)

    def _source(self, problem: str | None) -> dict[str, Any]:
        row: dict[str, Any] = {"address": self._coordinator.name, "readOnly": self._read_only}
        if self._coordinator.is_local:
            row["local"] = True
        if self._release:
            row["release"] = self._release
        return row if problem is None else {**row, "problem": problem}

    def _publish(self, now: State) -> None:
        number = 0 if self._version is None else self._version.number + 1
        self._version = Version(number, now, self._ahead)
        self._is_stale = False
        self._changed.set()
        self._changed = anyio.Event()
