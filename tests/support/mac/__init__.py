"""Processes that look like those of macOS: no Mac was at hand."""

from __future__ import annotations

from pathlib import Path

SUPPORT = Path(__file__).parent
MAC = {"PYTHONPATH": str(SUPPORT)}
"""Variables of a command that shall look like one on macOS."""
