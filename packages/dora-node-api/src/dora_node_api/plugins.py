"""Names of the package `dora` that plug-ins add: entry points of the group `dora.node_api`."""

from __future__ import annotations

from typing import Any

INTERFACE = "1"
"""Version of the interface of plug-ins, as in `dora_config`, which nodes need not have."""
GROUP = "dora.node_api"


class PlugInUnusable(AttributeError):
    """The wheel of a name is not installed, or is of another version."""


def load(name: str) -> Any:
    """Return an object of a plug-in. Raises AttributeError, and what its import raises."""
    from importlib.metadata import entry_points

    several = list(entry_points(group=GROUP, name=name))
    wheel = _known_names().get(name) if len(several) != 1 else None
    of_dora = [one for one in several if one.dist is not None and one.dist.name == wheel]
    found = next(iter(of_dora or several), None)
    if found is None:
        if wheel is None:
            raise AttributeError(f"module 'dora' has no attribute {name!r}")
        raise PlugInUnusable(
            f"dora.{name} needs {wheel}; install it, in a checkout of dora for Python:"
            f" pip install packages/{wheel}"
        )
    if found.dist is not None:
        stated = [one.name for one in found.dist.entry_points if one.group == "dora.interface"]
        if INTERFACE not in stated:
            raise PlugInUnusable(
                f"dora.{name}: {found.dist.name} {found.dist.version} is for version"
                f" {', '.join(stated) or 'none'} of the interface of plug-ins, and this dora has"
                f" version {INTERFACE}; install versions of {found.dist.name} and dora that fit"
            )
    return found.load()


def names() -> list[str]:
    """Return the names that installed plug-ins add."""
    from importlib.metadata import entry_points

    return sorted({one.name for one in entry_points(group=GROUP)})


def _known_names() -> dict[str, str]:
    """Return the wheel of each name that the plug-ins of this project have."""
    import json
    from pathlib import Path

    found: dict[str, str] = json.loads(Path(__file__).with_name("known_plugins.json").read_text())
    return found
