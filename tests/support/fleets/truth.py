"""Samples what a coordinator's list says of the newest dataflow, all the time, and judges it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dora_cli.coordinator.client import Client
from dora_config.access import Endpoint
from dora_config.errors import DoraError
from dora_config.protocol.control import DataflowList, ListDataflows

_EVERY = 0.05
_OVERLAP = 10.0
"""Seconds within which the nodes of a runner that was killed have ended, on a busy machine."""


class Truth:
    """What may be said at present (``may_say``), and what was said or seen that may not be."""

    def __init__(
        self, endpoint: Callable[[], Endpoint], living: Callable[[], dict[str, list[int]]]
    ) -> None:
        """``living``: processes of each node."""
        self._endpoint = endpoint
        self._living = living
        self._lock = threading.Lock()
        self._epoch = 0
        self._allowed: frozenset[str] | None = None
        self._why = ""
        self._twice: dict[str, float] = {}
        self._ending = False
        self._client: Client | None = None
        self.said: list[str] = []
        """Statuses in the order in which they were said since the last ``may_say``."""
        self.lies: list[str] = []
        self._thread = threading.Thread(target=self._run, name="truth")
        self._thread.start()

    def may_say(self, statuses: str, why: str) -> None:
        """From now on only these words are true, separated by blanks; "" allows anything."""
        with self._lock:
            self._epoch += 1
            self._allowed = frozenset(statuses.split()) or None
            self._why = why
            self.said.clear()

    def close(self) -> None:
        self._ending = True
        self._thread.join()

    def _run(self) -> None:
        while not self._ending:
            self._look()
            time.sleep(_EVERY)
        self._hang_up()

    def _look(self) -> None:
        epoch = self._epoch
        said = self._ask()
        self._count(time.monotonic())
        with self._lock:
            if said is None or epoch != self._epoch:
                return
            word, reason = said
            if not self.said or self.said[-1] != word:
                self.said.append(word)
            if self._allowed is not None and word not in self._allowed:
                self._lie(f"{self._why}: list says {word} ({reason})")
            if word in ("Degraded", "Failed") and not reason:
                self._lie(f"{self._why}: list says {word} without a reason")

    def _count(self, now: float) -> None:
        """No node may run twice, but for the moment in which an old one ends."""
        for name, pids in self._living().items():
            if len(pids) < 2:
                self._twice.pop(name, None)
            elif now - self._twice.setdefault(name, now) > _OVERLAP:
                self._lie(f"{self._why}: {name} runs as {pids}")

    def _lie(self, text: str) -> None:
        if text not in self.lies:
            self.lies.append(text)

    def _ask(self) -> tuple[str, str | None] | None:
        try:
            if self._client is None:
                self._client = Client(self._endpoint())
            dataflows = self._client.ask(ListDataflows(), DataflowList).dataflows
        except DoraError:
            self._hang_up()
            return None
        return (dataflows[-1].status, dataflows[-1].reason) if dataflows else None

    def _hang_up(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.__exit__(None, None, None)


@contextmanager
def truth(
    endpoint: Callable[[], Endpoint], living: Callable[[], dict[str, list[int]]]
) -> Iterator[Truth]:
    watching = Truth(endpoint, living)
    try:
        yield watching
    finally:
        watching.close()
