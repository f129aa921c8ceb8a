"""Commands of the usual package installers."""

from __future__ import annotations

import sys


def installer_commands(pip: str, tool: str) -> list[str]:
    """Return the command line of each installer: ``pip`` its arguments, ``tool`` those of tools."""
    return [
        f"  pip:  {sys.executable} -m {pip}",
        f"  uv:   uv tool {tool}",
        f"  pipx: pipx {tool}",
    ]
