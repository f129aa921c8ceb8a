"""What a node's log file holds so far."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def entries(path: Path) -> list[dict[str, Any]]:
    """All but a line that is just being written."""
    *complete, _ = path.read_text().split("\n")
    return [json.loads(line) for line in complete]


def texts(path: Path) -> list[str]:
    """What the entries say."""
    return [entry["msg"] for entry in entries(path)]
