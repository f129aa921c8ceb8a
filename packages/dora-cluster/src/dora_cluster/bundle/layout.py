"""Paths of an installation on a machine, in the user's home or for the whole system; pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True, slots=True)
class Layout:
    """``~`` is the home of the user on the machine."""

    prefix: str
    """The folder of the versions."""
    link: str
    """The command for users and services."""
    sudo: bool


USER: Final = Layout("~/.local/share/dora/versions", "~/.local/bin/dora", sudo=False)
"""Layout of ``cluster up``, which needs no root rights."""

SYSTEM: Final = Layout("/opt/dora", "/usr/local/bin/dora", sudo=True)
"""Layout of ``cluster install`` and ``cluster upgrade``."""


def system(prefix: str | None) -> Layout:
    """Return ``SYSTEM``, with another folder for the versions."""
    return SYSTEM if prefix is None else replace(SYSTEM, prefix=prefix)


COORDINATOR: Final = Layout("/opt/dora-coordinator", "/opt/dora-coordinator/dora", sudo=True)
"""Layout of a coordinator's service; it is switched independently of a daemon there."""

USERS_COORDINATOR: Final = Layout(
    "~/.local/share/dora/coordinator", "~/.local/share/dora/coordinator/dora", sudo=False
)
"""Layout of a coordinator with `install --user`."""
