"""A folder with node scripts and a dataflow file."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Workspace:
    """Files of one dataflow under ``path``."""

    path: Path

    def file(self, name: str, text: str) -> Path:
        """Write dedented text to a file; create its folders."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(textwrap.dedent(text).lstrip("\n"))
        return target

    def node(self, name: str, source: str) -> Path:
        """Write a node script: ``node("talker", "...")`` makes talker.py."""
        return self.file(name if name.endswith(".py") else f"{name}.py", source)

    def dataflow(self, content: str | Mapping[str, Any], name: str = "dataflow.yml") -> Path:
        """Write a dataflow file from YAML text or a mapping (as JSON, a subset of YAML)."""
        if isinstance(content, str):
            return self.file(name, content)
        return self.file(name, json.dumps(content, indent=2))
