"""Runs the pending work of queues while there is some."""

from __future__ import annotations

import asyncio

from dora_daemon.runner.nodes.queues import QueueRegistry

INTERVAL = 0.05


class QueueCleanup:
    """Calls :meth:`QueueRegistry.cleanup` until nothing is pending."""

    def __init__(self, registry: QueueRegistry) -> None:
        self._registry = registry
        self._handle: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def schedule(self) -> None:
        """Call this after a process ended or something was announced."""
        if self._handle is None and self._registry.needs_cleanup:
            self._handle = self._loop.call_later(INTERVAL, self._run)

    def _run(self) -> None:
        self._handle = None
        self._registry.cleanup()
        self.schedule()

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
