"""The wheels of this project, and which of them each one needs."""

from __future__ import annotations

import json
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

PAGE = "../packages/dora-config/src/dora_config/wheels.json"

_PACKAGES = Path(__file__).resolve().parents[2] / "packages"


def render() -> str:
    """Return the wheels from the lowest to the highest."""
    projects = {
        path.parent.name: tomllib.loads(path.read_text())["project"]
        for path in sorted(_PACKAGES.glob("*/pyproject.toml"))
    }
    needs = {
        wheel: [
            name
            for line in project["dependencies"]
            if (name := line.partition("==")[0]) in projects
        ]
        for wheel, project in projects.items()
    }
    return json.dumps(
        {one: needs[one] for one in TopologicalSorter(needs).static_order()}, indent=2
    )
