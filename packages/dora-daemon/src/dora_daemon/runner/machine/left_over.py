"""Dataflows that continue although all nodes that send by themselves have ended; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dora_daemon.runner.machine import commands as do

LEFT_OVER: Final = "left_over"
"""Name of the timer of the notice."""
LEFT_OVER_SECONDS = 10.0
"""Seconds until the notice; seconds without messages after which nodes that only wait for each
other are stopped."""


@dataclass(frozen=True, slots=True)
class LeftOver:
    """Sources of events for the remaining nodes."""

    timers: tuple[str, ...] = ()
    """Nodes that read a timer."""
    logs: tuple[str, ...] = ()
    """Nodes that read ``dora/logs``."""
    waiting: tuple[str, ...] = ()
    """Nodes that read outputs of the others."""
    each_other: bool = False
    """Whether each node that they read waits for another one, as a service and its client do."""

    @property
    def notice(self) -> str:
        """Log line about the conditions that the dataflow waits for, and about its end."""
        found = [
            _sentence(nodes, what)
            for nodes, what in (
                (self.waiting, "outputs of the others" if self.timers else "outputs of each other"),
                (self.timers, "a timer"),
                (self.logs, "dora/logs"),
            )
            if nodes
        ]
        way = "Ctrl-C or `dora stop` ends it"
        if not self.waiting or self.each_other:
            way += ", `--exit-when-nodes-finish` lets such dataflows end by themselves"
        return f"the dataflow runs on: {'; '.join(found)}. {way}"


def _sentence(nodes: tuple[str, ...], what: str) -> str:
    names = ", ".join(f'"{node}"' for node in nodes)
    return f"node {names} reads {what}" if len(nodes) == 1 else f"nodes {names} read {what}"


class LeftOverWatch:
    """Logs once what a dataflow waits for, and stops nodes that only wait for each other."""

    def __init__(self, *, stops: bool) -> None:
        """``stops``: whether such nodes are stopped (``exit_when_nodes_finish``)."""
        self._stops = stops
        self._now: LeftOver | None = None
        self._noticed: LeftOver | None = None
        self._armed = False

    def changed(self, left: LeftOver | None, now: float) -> list[do.Command]:
        """Return the commands after any event; ``left``: None while other nodes send."""
        if left == self._now and (left is None or self._armed or left == self._noticed):
            return []
        self._now = left
        if left is None:
            self._armed = False
            return [do.CancelTimer(None, LEFT_OVER)]
        return self._arm(now)

    def _arm(self, now: float) -> list[do.Command]:
        self._armed = True
        return [do.ArmTimer(None, LEFT_OVER, now + LEFT_OVER_SECONDS)]

    def fired(self, now: float, *, busy: bool) -> tuple[list[do.Command], str | None]:
        """Return the notice, or the reason to stop; ``busy``: messages are still exchanged."""
        left, self._armed = self._now, False
        if left is None:
            return [], None
        ends = self._stops and bool(left.waiting) and left.each_other
        if ends and not busy:
            return [], "the remaining nodes only wait for each other"
        commands = self._arm(now) if ends else []
        if left != self._noticed:
            self._noticed = left
            if not ends:
                commands.append(do.EmitLog("info" if left.timers else "warn", left.notice))
        return commands, None
