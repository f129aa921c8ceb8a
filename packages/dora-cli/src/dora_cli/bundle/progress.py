"""Progress of a transfer; pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_LARGE: Final = 10 << 20


def sending(report: Callable[[str], None], total: int, *, offset: int = 0) -> Callable[[int], None]:
    """Return a function that reports ``sending 12 of 83 MiB`` for the bytes since ``offset``."""
    shift, unit = (20, "MiB") if total >= _LARGE else (10, "KiB")
    shown = -1

    def progress(sent: int) -> None:
        nonlocal shown
        now = (offset + sent) >> shift
        if now != shown:
            shown = now
            report(f"sending {now} of {total >> shift} {unit}")

    progress(0)
    return progress
