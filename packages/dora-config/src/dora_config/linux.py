"""Nodes run on Linux; commands that start nodes refuse other systems. Standard library only."""

from __future__ import annotations

import sys

from dora_config.errors import DoraError


class NeedsLinux(DoraError):
    """A command would start nodes on a system other than Linux."""

    def __str__(self) -> str:
        system = "macOS" if sys.platform == "darwin" else sys.platform
        return (
            f"nodes run on Linux only, and this machine runs {system}: start a coordinator here "
            "and daemons on Linux machines with `dora cluster up`, and dataflows there with "
            "`dora start`"
        )


def require_linux() -> None:
    """Raise NeedsLinux on another system."""
    if sys.platform != "linux":
        raise NeedsLinux
