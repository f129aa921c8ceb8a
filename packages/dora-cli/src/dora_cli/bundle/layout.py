"""Where dora lies on a machine: in the user's home, or for the whole system; pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True, slots=True)
class Layout:
    """``~`` is the home of the user on the machine."""

    prefix: str
    """The folder of the versions."""
    link: str
    """What users and services call."""
    sudo: bool

    def link_for(self, home: str) -> str:
        """The link's absolute path."""
        return self.link.replace("~", home, 1)


USER: Final = Layout("~/.local/share/dora/versions", "~/.local/bin/dora", sudo=False)
"""What ``cluster up`` uses: no rights are needed."""

SYSTEM: Final = Layout("/opt/dora", "/usr/local/bin/dora", sudo=True)
"""What ``cluster install`` and ``cluster upgrade`` use."""


def system(prefix: str | None) -> Layout:
    """``SYSTEM``, with a folder of the user's choice for the versions."""
    return SYSTEM if prefix is None else replace(SYSTEM, prefix=prefix)


COORDINATOR: Final = Layout("/opt/dora-coordinator", "/opt/dora-coordinator/dora", sudo=True)
"""Of a coordinator's service on another machine: switched apart from the daemon beside it."""

USERS_COORDINATOR: Final = Layout(
    "~/.local/share/dora/coordinator", "~/.local/share/dora/coordinator/dora", sudo=False
)
"""The same for `install --user`."""
