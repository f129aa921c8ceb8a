"""State of the link between two machines, for messages; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dora_config.protocol.link_reasons import LINK_PROTOCOL, LINKS_SETTING
from dora_coordinator.state.commands import Command, Log

ADVICE = (
    "open one of these TCP ports in the firewall of its machine, or have the daemon listen on "
    "another address with --zenoh-listen"
)

Pair = tuple[str, str]
"""Keys of two daemons, sorted."""


@dataclass(frozen=True, slots=True)
class Unlinked:
    """A pair that is not linked; ``reason`` quotes the reports of its ends, if there are any."""

    pair: Pair
    lost: bool
    """It was linked before."""
    reason: str | None
    slow: bool = False
    """Connections between the two succeed but take long; waiting may help."""

    def __str__(self) -> str:
        first, second = self.pair
        manner = "have lost each other" if self.lost else "cannot reach each other"
        return f'"{first}" and "{second}" {manner}' + (f": {self.reason}" if self.reason else "")

    def pending(self) -> str:
        """Describe the pair while the time limit has not passed."""
        first, second = self.pair
        reason = f": {self.reason}" if self.reason else ""
        slow = " over a slow network" if self.slow else ""
        return f'"{first}" and "{second}" have not reached each other yet{slow}{reason}'


def explain_unlinked(pairs: Sequence[Unlinked]) -> str:
    """Describe all pairs that cannot reach each other and what to do, one per line."""
    lines = [str(pair) if pair.reason else f"{pair}: no answer" for pair in pairs]
    if lines and all(LINKS_SETTING in line or LINK_PROTOCOL in line for line in lines):
        return "\n".join(lines)  # not a firewall problem; the reason contains the remedy
    return "\n".join((*lines, ADVICE))


@dataclass(frozen=True, slots=True)
class LinkChanges:
    """Result of an event of :class:`Links`."""

    moved: bool = False
    """The machine listens at another address or has another run id; its peers need the new one."""
    broken: tuple[Unlinked, ...] = ()
    """Pairs that have just lost their link."""
    linked: tuple[Pair, ...] = ()

    def log(self, label: str) -> list[Command]:
        """Return log lines for the dataflow with that label."""
        broken = [Log("warning", f"dataflow {label}: {pair}") for pair in self.broken]
        linked = [
            Log("info", f'dataflow {label}: "{first}" and "{second}" are linked')
            for first, second in self.linked
        ]
        return [*broken, *linked]
