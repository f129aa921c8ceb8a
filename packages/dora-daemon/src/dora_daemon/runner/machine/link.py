"""The life of the link process, as the runner decides it; pure.

It is started with the nodes, started again whenever it dies, and asked to end once all nodes have
ended: then it passes on what waits. That may take as long as its peers' consumers need, since
nothing that was sent may get lost, but only a few seconds once the dataflow is being stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from dora_daemon.link import LINK_NODE
from dora_daemon.runner.machine.commands import (
    AdmitLink,
    ArmTimer,
    CancelTimer,
    Command,
    FinishLink,
    Refuse,
    Say,
    SignalLink,
    SpawnLink,
)
from dora_daemon.runner.machine.events import (
    Exit,
    LinkConnected,
    LinkExited,
    LinkSpawned,
    TimerFired,
)

FIRST_DELAY = 0.1
LONGEST_DELAY = 5.0
"""Seconds between the death of a link and the start of the next."""
GOOD_LIFE = 10.0
"""Seconds after which a link counts as one that works: the next delay is the first again."""
DRAIN_AT_STOP = 5.0
"""Seconds that a link has to pass on what waits when the dataflow is being stopped."""
DRAIN_AT_END = 24 * 3600.0
"""The same when all nodes have ended by themselves: the consumers' pace decides."""
SAY_AFTER = 10.0
"""Seconds after which it is said that only the link is left."""
LEAVE = 2.0
"""Seconds a link has to end after that."""
LAST_ATTEMPTS = 3
"""Links that are started to pass on no more than the news that nodes have ended."""


class LinkState(Enum):
    NONE = "none"
    STARTING = "starting"
    RUNNING = "running"
    BACKING_OFF = "backing off"
    ENDED = "ended"


@dataclass(slots=True)
class LinkLife:
    """Changed by its methods only; they return what is to be done."""

    next_incarnation: Callable[[], int]
    state: LinkState = LinkState.NONE
    incarnation: int = 0
    restarts: int = 0
    ends_at: float | None = None
    """It was asked to end: when its patience is over."""
    _started: float = 0.0
    _delay: float = FIRST_DELAY
    _last_attempts: int = 0

    @property
    def ending(self) -> bool:
        return self.ends_at is not None

    @property
    def over(self) -> bool:
        """Nothing of it is left to wait for."""
        return self.state in (LinkState.NONE, LinkState.ENDED)

    def start(self, now: float) -> list[Command]:
        """Start it, unless it was."""
        return self._spawn(now) if self.state is LinkState.NONE else []

    def _spawn(self, now: float) -> list[Command]:
        self.incarnation = self.next_incarnation()
        self.state = LinkState.STARTING
        self._started = now
        return [SpawnLink(self.incarnation)]

    def spawned(self, event: LinkSpawned) -> list[Command]:
        """Its process runs; it may have been asked to end meanwhile."""
        if event.incarnation != self.incarnation or self.ends_at is None:
            return []
        return [FinishLink(max(0.0, self.ends_at - self._started))]

    def connected(self, event: LinkConnected) -> list[Command]:
        """It said Hello on the node socket."""
        if self.state is not LinkState.STARTING or event.incarnation != self.incarnation:
            return [Refuse(LINK_NODE, "another process is the link of this dataflow now")]
        self.state = LinkState.RUNNING
        return [AdmitLink(self.incarnation)]

    def exited(self, event: LinkExited, now: float) -> list[Command]:
        """Its process ended, or could not be started."""
        if event.incarnation != self.incarnation or self.state is LinkState.ENDED:
            return []
        if self.ends_at is not None:
            self._last_attempts += event.drained
            given_up = now >= self.ends_at or self._last_attempts > LAST_ATTEMPTS
            if event.exit.ok or given_up:
                self.state = LinkState.ENDED
                return self._cancel()
        if now - self._started >= GOOD_LIFE:
            self._delay = FIRST_DELAY
        delay, self._delay = self._delay, min(self._delay * 2, LONGEST_DELAY)
        self.state = LinkState.BACKING_OFF
        self.restarts += 1
        return [
            Say("warn", f"the link to other machines {_how(event)}; next one in {delay:g} s"),
            ArmTimer(LINK_NODE, "backoff", now + delay),
        ]

    def end(self, now: float, *, stopping: bool, force: bool = False) -> list[Command]:
        """All nodes have ended. May be said again with less patience."""
        if self.over:
            return []
        patience = 0.0 if force else DRAIN_AT_STOP if stopping else DRAIN_AT_END
        if self.ends_at is not None and self.ends_at <= now + patience:
            return []
        self.ends_at = now + patience
        if force:
            return self._kill()
        armed: list[Command] = [ArmTimer(LINK_NODE, "kill", self.ends_at + LEAVE)]
        if not stopping:
            armed.append(ArmTimer(LINK_NODE, "notice", now + SAY_AFTER))
        if self.state is LinkState.BACKING_OFF:
            # What waits is passed on even so.
            return [CancelTimer(LINK_NODE, "backoff"), *armed, *self._spawn(now)]
        return [*armed, FinishLink(patience)]

    def cut(self) -> list[Command]:
        """End it at once and tell the peers nothing."""
        if self.over:
            return []
        commands = self._kill()
        self.state = LinkState.ENDED
        return commands

    def timer(self, event: TimerFired, now: float) -> list[Command]:
        match event.timer, self.state:
            case "backoff", LinkState.BACKING_OFF:
                return self._spawn(now)
            case "notice", LinkState.STARTING | LinkState.RUNNING | LinkState.BACKING_OFF:
                return [
                    Say(
                        "info",
                        "all nodes here have ended; what waits for other machines is still passed"
                        " on (stop the dataflow to give it up)",
                    )
                ]
            case "kill", LinkState.STARTING | LinkState.RUNNING | LinkState.BACKING_OFF:
                return [
                    Say("warn", "the link to other machines could not pass on all that waits"),
                    *self._kill(),
                ]
            case _:
                return []

    def _kill(self) -> list[Command]:
        if self.state is LinkState.BACKING_OFF:
            self.state = LinkState.ENDED
            return self._cancel()
        return [*self._cancel(), SignalLink("SIGKILL")]

    @staticmethod
    def _cancel() -> list[Command]:
        return [CancelTimer(LINK_NODE, name) for name in ("backoff", "notice", "kill")]


def _how(event: LinkExited) -> str:
    if event.error:
        return f"could not be started: {event.error}"
    status: Exit = event.exit
    how = f"signal {status.signal}" if status.signal is not None else f"exit code {status.code}"
    return f"has ended ({how})" + (f": {event.last_words}" if event.last_words else "")
