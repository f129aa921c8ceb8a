"""Reads log files of nodes that may still be written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def entries(path: Path) -> list[dict[str, Any]]:
    """Return the entries, without an incomplete last line."""
    *complete, _ = path.read_text().split("\n")
    return [json.loads(line) for line in complete]


def texts(path: Path) -> list[str]:
    """Return the messages of the entries."""
    return [entry["msg"] for entry in entries(path)]
