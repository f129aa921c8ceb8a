"""End of the daemon: after its dataflows, with its machine, or while its runners continue; pure."""

from __future__ import annotations

from dataclasses import dataclass

from dora_config.protocol import runner as protocol
from dora_config.protocol.daemon import DaemonLeaving
from dora_daemon.agent import commands as do, events
from dora_daemon.agent.parts.table import PartTable

SHUTDOWN_GRACE = 10.0
"""Seconds for nodes to end when the machine stops; systemd waits for 90."""


@dataclass(slots=True)
class Departure:
    """Conditions that the daemon waits for before it ends."""

    ending: bool = False
    """Whether the dataflows are being stopped; the daemon ends after them."""
    left_with_machine: set[str] | None = None
    """Parts whose runners have not ended yet, when the machine stops."""

    def stop_with_machine(self, parts: PartTable) -> list[do.Command]:
        """End runners without changing records: the next daemon process reports the parts as lost,
        as after a power failure.
        """
        live = {key: part for key, part in parts.items() if part.live and part.lost is None}
        self.left_with_machine = set(live)
        commands: list[do.Command] = [
            do.SendToRunner(key, protocol.ShutDown(grace=SHUTDOWN_GRACE))
            if part.runner is not None
            else do.SignalRunner(key)
            for key, part in live.items()
        ]
        return commands if live else leave(hand_over=True)

    def runner_ended_with_machine(self, event: events.RunnerNotice) -> list[do.Command]:
        """Return the commands that follow the end of the last runner; ignore other notices."""
        left = self.left_with_machine
        if left is None or not isinstance(event, events.RunnerEnded):
            return []
        left.discard(event.dataflow_id)
        return [] if left else leave(hand_over=True)

    def end_if_idle(self, parts: PartTable) -> list[do.Command]:
        """End if that was requested and no part is left."""
        if not self.ending or any(part.live for part in parts.values()):
            return []
        return leave(hand_over=False)


def leave(*, hand_over: bool) -> list[do.Command]:
    """Return the last commands; ``hand_over``: the runners continue for the next daemon."""
    return [do.SendToCoordinator(DaemonLeaving(hand_over=hand_over)), do.ExitDaemon()]
