"""Requests to one runner that it has not answered; pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from dora_config.protocol.runner import (
    GetStatus,
    Handshake,
    RunnerReply,
    RunnerRequest,
    ShutDown,
    StopAllNodes,
)
from dora_daemon._version import __version__

SILENCE_LIMIT: Final = 10
"""Seconds without a message of the runner after which a request times out. They are counted in
ticks: a process that was suspended itself first has to read what was sent meanwhile.
"""
FORCED_SILENCE_LIMIT: Final = 3
"""Seconds without a message of the runner after which a forced stop times out."""

OnReply = Callable[[RunnerReply | None, str | None], None]
"""Takes the reply to a request, or the reason why it has failed."""

FIRST_REQUESTS: Final = (Handshake(release=__version__), GetStatus())
"""Sent on every new connection."""


@dataclass(slots=True)
class _Pending:
    request: RunnerRequest
    on_reply: OnReply | None
    limit: int | None
    """Seconds of silence after which the request times out."""
    silent: int = -1
    """Ticks without a message; begins at -1, because the first tick may follow at once."""


@dataclass(slots=True)
class PendingRequests:
    """Requests by number.

    One with ``on_reply`` ends with its connection; any other is sent again on the next connection
    until it is answered.
    """

    _pending: dict[int, _Pending] = field(default_factory=dict)
    _last: int = 0

    def add(self, request: RunnerRequest, on_reply: OnReply | None = None) -> int:
        """Add a request that is sent now or on the next connection; return its number."""
        self._last += 1
        if on_reply is not None or not isinstance(request, Handshake | GetStatus):
            self._pending[self._last] = _Pending(request, on_reply, _limit(request, on_reply))
        return self._last

    def receive(self, number: int | None) -> OnReply | None:
        """Note a message of the runner; return the callback of request ``number``, if any."""
        for pending in self._pending.values():
            pending.silent = -1
        answered = None if number is None else self._pending.pop(number, None)
        return None if answered is None else answered.on_reply

    @property
    def is_timed(self) -> bool:
        """Whether a request can time out."""
        return any(pending.limit is not None for pending in self._pending.values())

    def tick(self) -> tuple[list[OnReply], bool]:
        """Count a second; return the calls that timed out, and whether a stop did."""
        calls: list[OnReply] = []
        stop_timed_out = False
        for number, pending in list(self._pending.items()):
            pending.silent += 1
            if pending.limit is None or pending.silent < pending.limit:
                continue
            if pending.on_reply is None:
                stop_timed_out = True
                pending.limit = None
            else:
                del self._pending[number]
                calls.append(pending.on_reply)
        return calls, stop_timed_out

    def disconnect(self) -> list[OnReply]:
        """Return the calls that end with the connection."""
        calls = {number: p.on_reply for number, p in self._pending.items() if p.on_reply}
        for number in calls:
            del self._pending[number]
        return list(calls.values())

    def connect(self) -> list[RunnerRequest]:
        """Return the requests to send first on a new connection; :meth:`add` numbers them anew."""
        unanswered, self._pending = self._pending, {}
        return [*FIRST_REQUESTS, *(pending.request for pending in unanswered.values())]


def _limit(request: RunnerRequest, on_reply: OnReply | None) -> int | None:
    if on_reply is None and isinstance(request, StopAllNodes) and request.force:
        return FORCED_SILENCE_LIMIT
    if on_reply is not None or isinstance(request, StopAllNodes | ShutDown):
        return SILENCE_LIMIT
    return None
