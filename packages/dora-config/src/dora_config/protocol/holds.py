"""Limit of the wait for nodes that hold updates; for commands that import no models."""

from typing import Final

HOLD_LIMIT: Final = 300.0
"""Default of the seconds to wait."""
