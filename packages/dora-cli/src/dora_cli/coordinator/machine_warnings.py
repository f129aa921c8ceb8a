"""Warnings about the machines of a cluster, for its status; pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dora_cli.clock_offset import MAX_CLOCK_DIFFERENCE, clock_warning

if TYPE_CHECKING:
    from dora_config.protocol.snapshot import DaemonSummary

_COORDINATOR = "the coordinator's"


def plain_warnings(machines: Iterable[DaemonSummary]) -> list[str]:
    """Return a warning for the machines whose links are not encrypted."""
    names = [f'"{one.daemon}"' for one in machines if one.connected and one.plain_links]
    return [f"links: plain: messages of {', '.join(names)} are not encrypted"] if names else []


def clock_warnings(machines: Iterable[DaemonSummary]) -> list[str]:
    """Return a warning for each connected machine whose clock differs from the coordinator's."""
    return [
        f'"{one.daemon}": {clock_warning(one.clock_offset, _COORDINATOR)}'
        for one in machines
        if one.connected
        and one.clock_offset is not None
        and abs(one.clock_offset) > MAX_CLOCK_DIFFERENCE
    ]
