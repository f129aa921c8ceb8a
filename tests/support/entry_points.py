"""Entry points of our own wheels: as written, and as installed."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError, distribution

from support.sources import PACKAGES, ROOT


def written(wheel: str) -> set[tuple[str, str, str]]:
    """Return group, name and value of each entry point in a `pyproject.toml`."""
    text = (ROOT / "packages" / wheel / "pyproject.toml").read_text()
    groups = tomllib.loads(text)["project"].get("entry-points", {})
    return {(group, name, value) for group in groups for name, value in groups[group].items()}


def out_of_date() -> list[str]:
    """Return the installed wheels whose entry points have changed since they were installed."""
    found = []
    for wheel in PACKAGES:
        try:
            points = distribution(wheel).entry_points
        except PackageNotFoundError:
            continue
        installed = {(one.group, one.name, one.value) for one in points}
        if {one for one in installed if one[0] != "console_scripts"} != written(wheel):
            found.append(wheel)
    return found
