"""Polls the status of the newest dataflow in the coordinator's list and records violations."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from support.fleets.coordinator import DataflowReader

from dora_config.access import Endpoint
from dora_config.errors import DoraError

_EVERY = 0.05
_OVERLAP = 10.0
"""Seconds that nodes of a killed runner may take to end on a busy machine."""


class StatusMonitor:
    """Checks that the status is one of those allowed and that no node has two processes."""

    def __init__(
        self, endpoint: Callable[[], Endpoint], living: Callable[[], dict[str, list[int]]]
    ) -> None:
        """``living``: returns the process ids of each node."""
        self._reader = DataflowReader(endpoint)
        self._living = living
        self._lock = threading.Lock()
        self._epoch = 0
        self._allowed: frozenset[str] | None = None
        self._why = ""
        self._twice: dict[str, float] = {}
        self._ending = False
        self.seen: list[str] = []
        """Changes of the status since the last ``allow``."""
        self.violations: list[str] = []
        self._thread = threading.Thread(target=self._run, name="status monitor")
        self._thread.start()

    def allow(self, statuses: str, why: str) -> None:
        """Allow only these statuses from now on, separated by blanks; "" allows any."""
        with self._lock:
            self._epoch += 1
            self._allowed = frozenset(statuses.split()) or None
            self._why = why
            self.seen.clear()

    def close(self) -> None:
        self._ending = True
        self._thread.join()

    def _run(self) -> None:
        while not self._ending:
            self._sample()
            time.sleep(_EVERY)
        self._reader.close()

    def _sample(self) -> None:
        epoch = self._epoch
        row = self._newest()
        self._count(time.monotonic())
        with self._lock:
            if row is None or epoch != self._epoch:
                return
            status, reason = row
            if not self.seen or self.seen[-1] != status:
                self.seen.append(status)
            if self._allowed is not None and status not in self._allowed:
                self._report(f"{self._why}: listed as {status} ({reason})")
            if status in ("Degraded", "Failed") and not reason:
                self._report(f"{self._why}: listed as {status} without a reason")

    def _count(self, now: float) -> None:
        """Report nodes with two processes for longer than the old one may take to end."""
        for name, pids in self._living().items():
            if len(pids) < 2:
                self._twice.pop(name, None)
            elif now - self._twice.setdefault(name, now) > _OVERLAP:
                self._report(f"{self._why}: {name} runs as {pids}")

    def _report(self, text: str) -> None:
        if text not in self.violations:
            self.violations.append(text)

    def _newest(self) -> tuple[str, str | None] | None:
        try:
            dataflows = self._reader.dataflows()
        except DoraError:
            self._reader.close()
            return None
        return (dataflows[-1].status, dataflows[-1].reason) if dataflows else None


@contextmanager
def status_monitor(
    endpoint: Callable[[], Endpoint], living: Callable[[], dict[str, list[int]]]
) -> Iterator[StatusMonitor]:
    monitor = StatusMonitor(endpoint, living)
    try:
        yield monitor
    finally:
        monitor.close()
