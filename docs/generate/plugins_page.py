"""Names that the plug-ins of this project have, with the wheel to install for each."""

from __future__ import annotations

import json
import tomllib
from collections import defaultdict
from pathlib import Path

from dora_config.plugins import GROUPS

PAGE = "../packages/dora-config/src/dora_config/known_plugins.json"

_PACKAGES = Path(__file__).resolve().parents[2] / "packages"


def render() -> str:
    return json.dumps(names(), indent=2, sort_keys=True)


def names() -> dict[str, dict[str, str]]:
    """Return the wheel of each name, by group."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for file in sorted(_PACKAGES.glob("*/pyproject.toml")):
        project = tomllib.loads(file.read_text())["project"]
        wheel = project["name"].replace("_", "-")
        for group in GROUPS:
            for name in project.get("entry-points", {}).get(group, ()):
                found[group][name] = wheel
        for name in project.get("scripts", {}):
            if name != "dora":
                extra = name.removeprefix("dora-")
                has_extra = extra in project.get("optional-dependencies", {})
                found["nodes"][name] = f"{wheel}[{extra}]" if has_extra else wheel
    return found
