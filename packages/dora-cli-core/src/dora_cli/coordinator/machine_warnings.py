"""Warnings about the machines of a cluster, and the difference between two clocks; pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dora_config.protocol.snapshot import DaemonSummary

_COORDINATOR = "the coordinator's"

MAX_CLOCK_DIFFERENCE = 0.5
"""Seconds above which timestamps of two machines are not comparable."""
_UNITS = (("years", 365.25 * 86400), ("days", 86400.0), ("h", 3600.0), ("min", 60.0))


def show_offset(seconds: float) -> str:
    """Return a difference with its sign: `+0.02 s`, `-3.5 h`, `-56.9 years`."""
    return f"{'-' if seconds < 0 else '+'}{_amount(abs(seconds))}"


def _amount(seconds: float) -> str:
    for name, length in _UNITS:
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {name}"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2f} s"


def clock_warning(offset: float, reference: str) -> str:
    """Return the warning about a clock that is ``offset`` seconds ahead of ``reference``."""
    manner = "ahead of" if offset > 0 else "behind"
    return (
        f"its clock is {_amount(abs(offset))} {manner} {reference}: timestamps are not comparable "
        "(dataflows still run); synchronize both with a time server (on the machine: "
        "sudo timedatectl set-ntp true)"
    )


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
