"""State machine of the link process; pure.

The link starts with the nodes and is restarted whenever it fails. Once all nodes have ended it
delivers queued messages to other machines and ends. That may take as long as the consumers need,
because sent messages must not be lost, but only seconds once the dataflow is being stopped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from dora_config.retry import Retry, RetryPolicy
from dora_daemon.link import LINK_NODE
from dora_daemon.runner.machine import commands as do, events

RESTARTS = RetryPolicy(first=0.1, longest=5.0, stable=10.0)
"""Restarts of a link that has messages to carry."""
REPORTS = RetryPolicy(first=0.1, longest=5.0, limit=3)
"""Restarts without queued messages, which only report to peers that the nodes have ended."""
STOP_DRAIN_SECONDS = 5.0
"""Seconds to deliver queued messages when the dataflow is being stopped."""
END_DRAIN_SECONDS = 24 * 3600.0
"""Seconds to deliver them when all nodes have ended by themselves: consumers may be slow."""
NOTICE_SECONDS = 10.0
"""Seconds until a log line reports that only the link still runs."""
LEAVE_SECONDS = 2.0
"""Seconds to exit after the time to deliver is over."""

_TIMERS: tuple[events.TimerName, ...] = ("backoff", "notice", "kill")


class LinkProcessState(Enum):
    NONE = "none"
    STARTING = "starting"
    RUNNING = "running"
    BACKING_OFF = "backing off"
    ENDED = "ended"


@dataclass(slots=True)
class LinkLifecycle:
    """State of the link process of one dataflow."""

    _incarnations: Iterator[int]
    state: LinkProcessState = LinkProcessState.NONE
    incarnation: int = 0
    restarts: int = 0
    _deadline: float | None = None
    """Time at which a finishing link is killed."""
    _started: float = 0.0
    _retry: Retry = field(default_factory=Retry)
    _reports: Retry = field(default_factory=Retry)
    _killed: bool = False
    """Whether SIGKILL was sent, after the time to deliver or because of a forced stop."""

    @property
    def finishing(self) -> bool:
        """Whether the link was ordered to deliver queued messages and end."""
        return self._deadline is not None

    @property
    def over(self) -> bool:
        """Whether no link process will run again."""
        return self.state in (LinkProcessState.NONE, LinkProcessState.ENDED)

    def handle(
        self, event: events.LinkProcessEvent | events.TimerFired, now: float
    ) -> list[do.Command]:
        """Process one event and return commands."""
        match event:
            case events.LinkSpawned(incarnation=number):
                return self._spawned(number, now)
            case events.LinkConnected(incarnation=number):
                return self._connected(number)
            case events.LinkExited():
                return self._exited(event, now)
            case events.TimerFired(timer=timer):
                return self._timer(timer, now)

    def start(self, now: float) -> list[do.Command]:
        """Start the link unless it was started; an edge leaves or enters this machine."""
        return self._spawn(now) if self.state is LinkProcessState.NONE else []

    def _spawn(self, now: float) -> list[do.Command]:
        self.incarnation = next(self._incarnations)
        self.state = LinkProcessState.STARTING
        self._started = now
        return [do.SpawnLink(self.incarnation)]

    def _spawned(self, incarnation: int, now: float) -> list[do.Command]:
        if incarnation != self.incarnation or self._deadline is None:
            return []
        return [do.FinishLink(max(0.0, self._deadline - now))]

    def _connected(self, incarnation: int) -> list[do.Command]:
        if self.state is not LinkProcessState.STARTING or incarnation != self.incarnation:
            return [do.Refuse(LINK_NODE, "this dataflow has another link process now")]
        self.state = LinkProcessState.RUNNING
        return [do.AdmitLink(self.incarnation)]

    def _exited(self, event: events.LinkExited, now: float) -> list[do.Command]:
        if event.incarnation != self.incarnation or self.state is LinkProcessState.ENDED:
            return []
        retry, policy = self._retry, RESTARTS
        if self.finishing and event.drained:
            retry, policy = self._reports, REPORTS
        delay = retry.failed(policy, now, now - self._started)
        if self._deadline is not None:
            given_up = now >= self._deadline or math.isinf(delay)
            if event.exit.ok or given_up:
                self.state = LinkProcessState.ENDED
                expected = event.exit.ok or self._killed
                return [*([] if expected else [_given_up(event)]), *self._cancel_timers()]
        self.state = LinkProcessState.BACKING_OFF
        self.restarts += 1
        text = f"restarting the link to other machines in {delay:g} s: {_cause(event)}"
        return [do.EmitLog("warn", text), do.ArmTimer(LINK_NODE, "backoff", now + delay)]

    def finish(self, now: float, *, stopping: bool, force: bool = False) -> list[do.Command]:
        """Deliver queued messages, then end; call this when all nodes have ended.

        A later call can only shorten the time to deliver. ``stopping``: the dataflow is being
        stopped; ``force``: kill the link at once.
        """
        if self.over:
            return []
        if force:
            self._deadline = now
            return self._kill()
        seconds = STOP_DRAIN_SECONDS if stopping else END_DRAIN_SECONDS
        if self._deadline is not None and self._deadline <= now + seconds:
            return []
        self._deadline = now + seconds
        armed: list[do.Command] = [do.ArmTimer(LINK_NODE, "kill", self._deadline + LEAVE_SECONDS)]
        if stopping:
            armed.append(do.CancelTimer(LINK_NODE, "notice"))
        else:
            armed.append(do.ArmTimer(LINK_NODE, "notice", now + NOTICE_SECONDS))
        if self.state is LinkProcessState.BACKING_OFF:
            # the next link delivers queued messages
            return [do.CancelTimer(LINK_NODE, "backoff"), *armed, *self._spawn(now)]
        return [*armed, do.FinishLink(seconds)]

    def cut(self) -> list[do.Command]:
        """End the link at once, without a notice to its peers."""
        if self.over:
            return []
        commands = self._kill()
        self.state = LinkProcessState.ENDED
        return commands

    def _timer(self, timer: events.TimerName, now: float) -> list[do.Command]:
        if timer == "backoff" and self.state is LinkProcessState.BACKING_OFF:
            return self._spawn(now)
        if self.over:
            return []
        if timer == "notice":
            text = (
                "all nodes here have ended; still delivering messages to other machines (stop the"
                " dataflow to discard them)"
            )
            return [do.EmitLog("info", text)]
        if timer == "kill":
            text = "the link could not deliver all messages to other machines in time"
            return [do.EmitLog("warn", text), *self._kill()]
        return []

    def _kill(self) -> list[do.Command]:
        if self.state is LinkProcessState.BACKING_OFF:
            self.state = LinkProcessState.ENDED
            return self._cancel_timers()
        self._killed = True
        return [*self._cancel_timers(), do.SignalLink("SIGKILL")]

    @staticmethod
    def _cancel_timers() -> list[do.Command]:
        return [do.CancelTimer(LINK_NODE, name) for name in _TIMERS]


def _given_up(event: events.LinkExited) -> do.EmitLog:
    lost = "" if event.drained else "; messages to other machines were not delivered"
    return do.EmitLog("warn", f"gave up the link to other machines: {_cause(event)}{lost}")


def _cause(event: events.LinkExited) -> str:
    if event.error:
        return f"it could not be started: {event.error}"
    exited = event.exit
    how = f"signal {exited.signal}" if exited.signal is not None else f"exit code {exited.code}"
    return f"it ended with {how}" + (f": {event.last_line}" if event.last_line else "")
